"""The application: its pages, its security checks, and the pages of errors."""

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
from pixelscope.serve.models import QUEUE_SIZE, ModelCache, QueueFull, Worker
from pixelscope.serve.pages import adapt, endoscopy, folders, runs
from pixelscope.serve.pages.folders import ImageFolders, ScoringJobs
from pixelscope.serve.rendering import environment, render
from pixelscope.serve.security import LOOPBACK, SecurityMiddleware, allowed_names, own_names

HERE = Path(__file__).parent
REPORT_STYLE = HERE.parent / "reports" / "style.css"
"""The style that reports and pages share."""
RETRY_AFTER = "2"
"""Seconds that a client waits when the queue is full."""


def create_app(
    places: Sequence[Path],
    hosts: frozenset[str] = LOOPBACK,
    queue_size: int = QUEUE_SIZE,
    root: str = "",
    data: Path | None = None,
) -> FastAPI:
    """Make the app.

    Args:
        places: folders of runs and detectors, or folders of them.
        hosts: host names to answer to, in lower case; the addresses of this machine need no name.
        queue_size: maximum number of calls of a model that wait or run.
        root: prefix that a proxy adds to every path, for example /pixelscope.
        data: folder; the frames in it and in folders below it can be scored. None: there is no page for that.

    Raises:
        InputError: `data` is not a folder.
    """
    listed = None if data is None else ImageFolders(data)
    worker, jobs = Worker(queue_size), ScoringJobs()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()
        worker.close()

    app = FastAPI(title="Pixelscope", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.models, app.state.worker, app.state.root = ModelCache(places), worker, root
    app.state.templates, app.state.folders, app.state.jobs = environment(folders=listed is not None), listed, jobs
    app.middleware("http")(SecurityMiddleware(hosts, root))

    @app.get("/static/report.css")
    async def report_style() -> Response:
        return FileResponse(REPORT_STYLE, media_type="text/css")

    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for page in (runs, adapt, endoscopy):
        app.include_router(page.router)
    if listed is not None:
        app.include_router(folders.router)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)

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
    data: Path | None = None,
) -> None:
    """Serve the app until Ctrl-C, and print its address.

    Args:
        places: folders of runs and detectors, or folders of them.
        host: the address to listen on. Any other than loopback opens the app to the network, without a password, under the
            addresses and names of this machine.
        port: the port to listen on; 0 takes a free one.
        allowed_hosts: further host names to answer to, for example that of a proxy, which must forward the Host header.
        root_path: prefix that a proxy adds to every path, for example /pixelscope.
        data: folder; the frames in it and in folders below it can be scored.

    Raises:
        InputError: `data` is not a folder, the port is taken, `host` is not an address of this machine, or a name or path is
            invalid.

    Example:
        >>> pixelscope.serve_runs([Path("runs")], port=8000)
    """
    import uvicorn

    root = root_path.rstrip("/")
    if root and not (root.startswith("/") and root.isprintable() and not set(root) & set('"<>?#& ')):
        raise InputError(f"--root-path must be a path such as /pixelscope, got {root_path!r}.")
    app = create_app(places, own_names(host) | allowed_names(allowed_hosts), root=root, data=data)
    for place in places:
        if not place.exists():
            print(f"Note: the folder {place} does not exist yet; its runs appear once they are made.", file=sys.stderr)
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
    """Return a listening socket; raises InputError if it cannot listen."""
    if not 0 <= port < 2**16:
        raise InputError(f"--port must be between 0 and 65535, got {port}.")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], str(found[0][4][0])
        return socket.create_server((address, port), family=family, backlog=2048)
    except socket.gaierror:
        raise InputError(f"--host must be an address of this machine, got {host!r}.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {host} is taken; choose another with --port.") from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"Cannot listen on port {port} of {host}: {reason}; change --host or --port.") from None


def _address(host: str, listening: socket.socket) -> str:
    """Return the address to print; for a host that means all addresses, with the name of this machine."""
    name, port = (socket.gethostname() if host in ("", "0.0.0.0", "::") else host), listening.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


async def _input_error(request: Request, error: Exception) -> Response:
    return _problem(request, str(error), 400)


async def _invalid_request(request: Request, error: Exception) -> Response:
    return _problem(request, "The address has an invalid number; use the links and buttons of the page.", 400)


async def _queue_full(request: Request, error: Exception) -> Response:
    response = _problem(request, "Too many requests are waiting; try again in a moment.", 503)
    response.headers["Retry-After"] = RETRY_AFTER
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    texts = {404: "This page does not exist; use the links above.", 405: "This page does not allow this method."}
    return _problem(request, texts.get(status, "This request cannot be answered."), status)


async def _defect(request: Request, error: Exception) -> Response:
    return _problem(request, "The app has failed; its terminal shows the error.", 500)


def _problem(request: Request, text: str, status: int) -> Response:
    """Return the text as a fragment to the script of a page, else as a page."""
    template = "problem.html.j2" if request.headers.get("x-fragment") else "error.html.j2"
    return render(request, template, status, text=text)
