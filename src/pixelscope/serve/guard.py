"""Who may ask for what: host names, origins of posts, sizes of bodies, and headers that keep pages to themselves."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

LARGEST_BODY = 12 * 1024 * 1024
"""Bytes of a request at most."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "[::1]", "testserver"))

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


class Guard:
    """Middleware: refuses what is not meant for this app, and puts the headers on every answer."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self.hosts = hosts

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Answer a request, or say why not."""
        refusal = self._refusal(request)
        response = await call_next(request) if refusal is None else refusal
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        host = _name(request.headers.get("host", ""))
        if host not in self.hosts:
            return _said("This address is not served here; use the one that was printed when the app was started.", 421)
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return _said("This request comes from another site; use the app's own pages.", 403)
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                return _said("This request comes from another site; use the app's own pages.", 403)
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return _said("A request needs a Content-Length; send it whole.", 411)
            if int(length) > LARGEST_BODY:
                return _said(f"That is over {LARGEST_BODY // 2**20} MB; give a smaller image.", 413)
        return None


def _name(host: str) -> str:
    """Return the host without its port."""
    return host.rsplit(":", 1)[0] if ":" in host and not host.endswith("]") else host


def _said(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status)
