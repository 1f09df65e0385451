"""The application: its pages, its guard, and what an error looks like."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from pixelscope.errors import InputError
from pixelscope.serve.desk import Busy, Desk
from pixelscope.serve.guard import LOOPBACK, Guard
from pixelscope.serve.pages import adapt, endoscopy, runs
from pixelscope.serve.rendering import environment, render
from pixelscope.serve.workspace import Workspace

HERE = Path(__file__).parent
REPORT_STYLE = HERE.parent / "report" / "style.css"
"""One look for reports and pages."""
RETRY = "2"
"""Seconds after which to come again where too many are waiting."""


def create_app(places: Sequence[Path], hosts: frozenset[str] = LOOPBACK, waiting: int | None = None) -> FastAPI:
    """Make the app over run folders, or folders of them.

    hosts: names by which it may be asked for; waiting: requests that may wait for computing.
    """
    desk = Desk() if waiting is None else Desk(waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(title="Pixelscope", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.workspace, app.state.desk, app.state.pages = Workspace(places), desk, environment()
    app.middleware("http")(Guard(hosts))

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
        return RedirectResponse("/runs", 303)

    return app


def serve_runs(places: Sequence[Path], host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the app until Ctrl-C, and print its address.

    host: the address to listen on; anything but loopback lets others on the network in, who need no password.
    """
    import uvicorn

    names = LOOPBACK | {host}
    app = create_app(places, names)
    print(f"Pixelscope is at http://{host}:{port} (Ctrl-C stops it).", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_keep_alive=10)


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
