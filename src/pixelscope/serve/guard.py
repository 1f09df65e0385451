"""Who may ask for what: host names, origins of posts, sizes of bodies, and headers that keep pages to themselves.

A page on the internet whose name is made to point at this machine (DNS rebinding) names itself in the Host header. So an
address of this machine may be asked for by anybody who reaches it, and a name only where it is known.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

from pixelscope.errors import InputError

LARGEST_BODY = 12 * 1024 * 1024
"""Bytes of a request at most."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))

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

    def __init__(self, hosts: frozenset[str], root: str = "") -> None:
        """Answer for `hosts`, and for the address that a request has reached; root: what a proxy puts before every path."""
        self.hosts, self.root = hosts, root

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Answer a request, or say why not."""
        refusal = self._refusal(request)
        # Some proxies take the prefix off, and some leave it.
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
            return _said(
                "This address is not served here; use the one that was printed when the app was started, or start it with "
                "--allowed-host.",
                421,
            )
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


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case and without its port; "" where it is neither."""
    name, _, port = host.strip().lower().rpartition(":") if _has_port(host) else (host.strip().lower(), "", "0")
    if not port.isdecimal():
        return ""
    if name.startswith("[") and name.endswith("]"):
        return _address(name[1:-1])
    return _address(name) or name.rstrip(".")


def own_names(host: str) -> frozenset[str]:
    """Return the names and addresses that are answered where the app listens on `host`."""
    names = (LOOPBACK | {host_name(host)}) - {""}
    if host_name(host) in LOOPBACK or (_address(host) and ip_address(host).is_loopback):
        return names
    own = {socket.gethostname(), socket.getfqdn()}
    return (names | {host_name(name) for name in own} | _addresses(own)) - {""}


def allowed_names(given: Sequence[str]) -> frozenset[str]:
    """Return the names of `--allowed-host`; raises InputError for what is no name."""
    for name in given:
        if not host_name(name) or set(name) & set("/*@ "):
            raise InputError(
                f"--allowed-host {name!r} is no host name; give one such as pixelscope.example.org, without http://."
            )
    return frozenset(map(host_name, given))


def _has_port(host: str) -> bool:
    return host.count(":") == 1 or "]:" in host


def _address(text: str) -> str:
    """Return an address in its usual form; "" where `text` is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)


def _addresses(names: set[str]) -> set[str]:
    """Return the addresses that this machine knows of itself: those of its names, and those that it goes out by."""
    found = set[str]()
    for name in names:
        with suppress(OSError):
            found |= {_address(str(entry[4][0])) for entry in socket.getaddrinfo(name, None)}
    for family, elsewhere in ((socket.AF_INET, "192.0.2.254"), (socket.AF_INET6, "2001:db8::1")):
        # Connecting a datagram socket sends nothing; it asks for the way there.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((elsewhere, 9))
            found.add(_address(str(way.getsockname()[0])))
    return found


def _reached(request: Request) -> str:
    """Return the address of this machine that a request has come to; "" where it is not known."""
    return _address((request.scope.get("server") or ("",))[0])


def _said(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status)
