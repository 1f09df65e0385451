"""Checks of every request (host name, origin, size of the body) and headers of every response.

A foreign page whose name is pointed at this machine (DNS rebinding) sends its own name as Host header. So the app answers to
the addresses of this machine, and to known names only.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

from pixelscope.errors import InputError

MAX_BODY = 12 * 1024 * 1024
"""Maximum size of a request in bytes."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, a browser hides the origin of the app's own forms, too, and `_refusal` would refuse them.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


class SecurityMiddleware:
    """Refuses requests from other sites and sets the headers of every response."""

    def __init__(self, hosts: frozenset[str], root: str = "") -> None:
        """Answer to `hosts` and to the address that a request has reached; root: prefix that a proxy adds to every path."""
        self.hosts, self.root = hosts, root

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Answer a request, or refuse it with the reason."""
        refusal = self._refusal(request)
        # Some proxies remove the prefix, others keep it.
        path = request.scope["path"]
        if self.root and f"{path}/".startswith(f"{self.root}/"):
            request.scope["path"] = path[len(self.root) :] or "/"
        response = await call_next(request) if refusal is None else refusal
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        host = host_name(request.headers.get("host", ""))
        if host not in self.hosts and not (host and host == _reached(request)):
            return _refuse(
                "This host name is not allowed; use the address printed at the start, or start the app with --allowed-host.",
                421,
            )
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return _refuse("This request comes from another site; use the app's own pages.", 403)
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                return _refuse("This request comes from another site; use the app's own pages.", 403)
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return _refuse("A request needs a Content-Length.", 411)
            if int(length) > MAX_BODY:
                return _refuse(f"The file is over {MAX_BODY // 2**20} MB; choose a smaller image.", 413)
        return None


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case and without port; "" if it is neither."""
    name, _, port = host.strip().lower().rpartition(":") if _has_port(host) else (host.strip().lower(), "", "0")
    if not port.isdecimal():
        return ""
    if name.startswith("[") and name.endswith("]"):
        return _address(name[1:-1])
    return _address(name) or name.rstrip(".")


def own_names(host: str) -> frozenset[str]:
    """Return the names and addresses to answer to when the app listens on `host`."""
    names = (LOOPBACK | {host_name(host)}) - {""}
    if host_name(host) in LOOPBACK or (_address(host) and ip_address(host).is_loopback):
        return names
    own = {socket.gethostname(), socket.getfqdn()}
    return (names | {host_name(name) for name in own} | _addresses(own)) - {""}


def allowed_names(given: Sequence[str]) -> frozenset[str]:
    """Return the names of `--allowed-host`; raises InputError for an invalid name."""
    for name in given:
        if not host_name(name) or set(name) & set("/*@ "):
            raise InputError(f"--allowed-host must be a host name such as pixelscope.example.org, got {name!r}.")
    return frozenset(map(host_name, given))


def _has_port(host: str) -> bool:
    return host.count(":") == 1 or "]:" in host


def _address(text: str) -> str:
    """Return an address in its usual form; "" if `text` is not an address."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)


def _addresses(names: set[str]) -> set[str]:
    """Return the addresses of this machine: those of its names, and those of its outgoing connections."""
    found = set[str]()
    for name in names:
        with suppress(OSError):
            found |= {_address(str(entry[4][0])) for entry in socket.getaddrinfo(name, None)}
    for family, elsewhere in ((socket.AF_INET, "192.0.2.254"), (socket.AF_INET6, "2001:db8::1")):
        # Connecting a datagram socket sends nothing; it only looks up the route.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as route:
            route.connect((elsewhere, 9))
            found.add(_address(str(route.getsockname()[0])))
    return found


def _reached(request: Request) -> str:
    """Return the address of this machine that a request has reached; "" if unknown."""
    return _address((request.scope.get("server") or ("",))[0])


def _refuse(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status)
