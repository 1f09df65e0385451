"""The application: its pages, its guard, and what an error looks like."""

import errno
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from pixelscope.errors import InputError, Interrupted
from pixelscope.serve.desk import Busy, Desk
from pixelscope.serve.guard import LOOPBACK, Guard, allowed_names, own_names
from pixelscope.serve.pages import adapt, endoscopy, runs
from pixelscope.serve.rendering import environment, render
from pixelscope.serve.workspace import Workspace

HERE = Path(__file__).parent
REPORT_STYLE = HERE.parent / "reports" / "style.css"
"""One look for reports and pages."""
RETRY = "2"
"""Seconds after which to come again where too many are waiting."""


def create_app(places: Sequence[Path], hosts: frozenset[str] = LOOPBACK, waiting: int | None = None, root: str = "") -> FastAPI:
    """Make the app over run folders, or folders of them.

    hosts: names by which it may be asked for, in lower case; the addresses of this machine need no name.
    waiting: requests that may wait for computing. root: what a proxy puts before every path, for example /pixelscope.
    """
    desk = Desk() if waiting is None else Desk(waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(title="Pixelscope", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.workspace, app.state.desk, app.state.pages, app.state.root = Workspace(places), desk, environment(), root
    app.middleware("http")(Guard(hosts, root))

    @app.get("/static/report.css")
    async def look() -> Response:
        return FileResponse(REPORT_STYLE, media_type="text/css")

    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for page in (runs, adapt, endoscopy):
        app.include_router(page.router)
    app.add_exception_handler(InputError, _explained)
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(HTTPException, _missing)
    app.add_exception_handler(Exception, _broken)

    @app.get("/")
    async def home() -> Response:
        return RedirectResponse(f"{root}/runs", 303)

    return app


def serve_runs(
    places: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
) -> None:
    """Serve the app until Ctrl-C, and print its address.

    Args:
        places: run folders, or folders of them.
        host: the address to listen on. Anything but loopback lets others on the network in, who need no password; they are
            answered by the addresses and names of this machine.
        port: the port to listen on; 0 takes a free one.
        allowed_hosts: other names by which it is answered, for example that of a proxy, which must hand the Host header on.
        root_path: what a proxy puts before every path, for example /pixelscope.

    Raises:
        InputError: the port is taken, `host` is no address of this machine, or a name or path is none.
    """
    import uvicorn

    root = root_path.rstrip("/")
    if root and not (root.startswith("/") and root.isprintable() and not set(root) & set('"<>?#& ')):
        raise InputError(f"--root-path {root_path!r} is no path; give one such as /pixelscope.")
    app = create_app(places, own_names(host) | allowed_names(allowed_hosts), root=root)
    for place in places:
        if not place.exists():
            print(f"Note: there is no folder {place} yet; runs are shown once they are made there.", file=sys.stderr)
    listening = _listen(host, port)
    print(f"Pixelscope is at {_address(host, listening)}{root} (Ctrl-C stops it).", flush=True)
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_keep_alive=10)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except (KeyboardInterrupt, Interrupted):
        pass
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises InputError where it cannot."""
    if not 0 <= port < 2**16:
        raise InputError(f"--port {port} is no port; give one from 1 to 65535.")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], str(found[0][4][0])
        return socket.create_server((address, port), family=family, backlog=2048)
    except socket.gaierror:
        raise InputError(f"{host!r} is no address to listen on; change --host.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {host} is taken; name another one with --port.") from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"Cannot listen on port {port} of {host}: {reason}; change --host or --port.") from None


def _address(host: str, listening: socket.socket) -> str:
    """Return the address to print: of a host that stands for all addresses, this machine's name."""
    name, port = (socket.gethostname() if host in ("", "0.0.0.0", "::") else host), listening.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


async def _explained(request: Request, error: Exception) -> Response:
    return _problem(request, str(error), 400)


async def _misread(request: Request, error: Exception) -> Response:
    return _problem(request, "The address has a value that is no number; use the links and buttons of the page.", 400)


async def _busy(request: Request, error: Exception) -> Response:
    response = _problem(request, "Too many requests are waiting; try again in a moment.", 503)
    response.headers["Retry-After"] = RETRY
    return response


async def _missing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    said = {404: "There is no such page; use the links above.", 405: "This page cannot be asked for in that way."}
    return _problem(request, said.get(status, "This cannot be answered."), status)


async def _broken(request: Request, error: Exception) -> Response:
    return _problem(request, "Something went wrong on this side; the terminal of the app says what.", 500)


def _problem(request: Request, text: str, status: int) -> Response:
    template = "problem.html.j2" if request.headers.get("hx-request") else "error.html.j2"
    return render(request, template, status, text=text)
