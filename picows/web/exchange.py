"""A request, whether our own server has read it or an ASGI server; each form is made from the other when it is asked for."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from multidict import CIMultiDict, MultiDict

from ..upgrade import WSUpgradeRequest


class ASGIScope(dict[str, Any]):
    """What is known of a connection, as ASGI has it: ``scope["type"]``, ``scope["path"]`` and so on."""


class Exchange:
    """A request, and what it is about.

    :param kind: "http" or "websocket"
    :param request: the request as our own server has it
    :param path: what routes are matched with: decoded, without the place where the application is mounted
    :param query_string: as it was sent, without the question mark
    :param client: the client's address and port, None where there are none
    :param scope: as an ASGI server has given it
    """

    __slots__ = ("_scope", "client", "kind", "path", "query_string", "request", "secure", "server")

    def __init__(
        self,
        kind: str,
        request: WSUpgradeRequest,
        path: str,
        query_string: bytes,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None = None,
        secure: bool = False,
        scope: ASGIScope | None = None,
    ) -> None:
        self.kind = kind
        self.request = request
        self.path = path
        self.query_string = query_string
        self.client = client
        self.server = server
        self.secure = secure
        self._scope = scope

    @property
    def scope(self) -> ASGIScope:
        if self._scope is None:
            self._scope = ASGIScope(scope_of(self))
        return self._scope

    def query_params(self) -> MultiDict[str]:
        # In the query a plus is a blank, which parse_qsl knows.
        query = self.query_string.decode("utf-8", "surrogateescape")
        return MultiDict(parse_qsl(query, keep_blank_values=True))

    def subprotocols(self) -> list[str]:
        return tokens(self.request, "Sec-WebSocket-Protocol")


def tokens(request: WSUpgradeRequest, name: str) -> list[str]:
    """The members of a list, which may stand on several lines (RFC 9110 section 5.6.1)."""
    lines = request.headers.getall(name, [])
    return [token.strip() for line in lines for token in line.split(",") if token.strip()]


def wants_websocket(request: WSUpgradeRequest) -> bool:
    return "websocket" in (token.lower() for token in tokens(request, "Upgrade"))


def exchange_of_request(request: WSUpgradeRequest) -> Exchange:
    kind = "websocket" if wants_websocket(request) else "http"
    path, _, query_string = request.path.partition(b"?")
    if not path.startswith(b"/"):
        # The absolute form, as for a proxy (RFC 9112 section 3.2.2).
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    get = getattr(request, "get_extra_info", lambda name: None)
    return Exchange(
        kind,
        request,
        unquote(path.decode()),
        query_string,
        address(get("peername")),
        address(get("sockname")),
        get("sslcontext") is not None,
    )


def address(name: Any) -> tuple[str, int] | None:
    """Host and port; None for a Unix domain socket, whose name is a path."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def scope_of(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    websocket = exchange.kind == "websocket"
    scope: dict[str, Any] = {
        "type": exchange.kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": ("ws" if websocket else "http") + "s" * exchange.secure,
        "path": exchange.path,
        "raw_path": request.path.partition(b"?")[0],
        "query_string": exchange.query_string,
        "root_path": "",
        "headers": [
            (as_bytes(name.lower()), as_bytes(value)) for name, value in request.headers.items()
        ],
        "client": exchange.client,
        "server": exchange.server,
        "state": {},
        "extensions": {},
    }
    if websocket:
        scope["subprotocols"] = exchange.subprotocols()
    else:
        scope["method"] = "GET"
    return scope


def exchange_of_scope(given: dict[str, Any]) -> Exchange:
    scope = ASGIScope(given)
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    query_string: bytes = scope.get("query_string") or b""
    target: bytes = scope.get("raw_path") or quote(path).encode()
    if query_string:
        target += b"?" + query_string
    headers = CIMultiDict((as_str(name), as_str(value)) for name, value in scope["headers"])
    request = WSUpgradeRequest(b"GET", target, b"HTTP/1.1", headers)
    if path == root or path.startswith(root + "/"):
        path = path[len(root) :] or "/"
    client = scope.get("client")
    return Exchange(
        scope["type"],
        request,
        path,
        query_string,
        None if client is None else tuple(client),
        scope=scope,
    )


# As our own server reads and writes header values, whatever bytes they are.


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def as_str(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
