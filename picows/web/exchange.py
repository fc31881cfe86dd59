"""A request, whether our own server has read it or an ASGI server; each form is made from the other when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union
from urllib.parse import quote

from multidict import CIMultiDict

from ..upgrade import WSUpgradeRequest

Address = Union[tuple[str, int], None]


class ASGIScope(dict[str, Any]):
    """What is known of a connection, as ASGI has it: ``scope["type"]``, ``scope["path"]`` and so on."""


class Exchange:
    """A request, and what it is about.

    :param kind: "http" or "websocket"
    :param request: the request as our own server has it
    :param path: what routes are matched with: decoded, without the place where the application is mounted
    :param client: the client's address and port, None where there are none
    :param scope: as an ASGI server has given it
    """

    __slots__ = ("_scope", "client", "kind", "path", "request")

    def __init__(
        self,
        kind: str,
        request: WSUpgradeRequest,
        path: str,
        client: Address,
        scope: ASGIScope | None = None,
    ) -> None:
        self.kind: str = kind
        self.request: WSUpgradeRequest = request
        self.path: str = path
        self.client: Address = client
        self._scope = scope

    @property
    def scope(self) -> ASGIScope:
        if self._scope is None:
            self._scope = scope_of(self)
        return self._scope

    def subprotocols(self) -> list[str]:
        return tokens(self.request, "Sec-WebSocket-Protocol")


def tokens(request: WSUpgradeRequest, name: str) -> list[str]:
    """The members of a list, which may stand on several lines (RFC 9110 section 5.6.1)."""
    lines = request.headers.getall(name, [])
    return [token.strip() for line in lines for token in line.split(",") if token.strip()]


def exchange_of_request(request: WSUpgradeRequest) -> Exchange:
    kind = "http"
    # Nothing else can be upgraded.
    if (request.method, request.version) == (b"GET", b"HTTP/1.1") and "websocket" in (
        token.lower() for token in tokens(request, "Upgrade")
    ):
        kind = "websocket"
    # Asked for now, because handlers ask when the client has gone.
    client = address(request.get_extra_info("peername"))
    return Exchange(kind, request, request.target_path, client)


def address(name: Any) -> Address:
    """Host and port; None for a Unix domain socket, whose name is a path."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def scope_of(exchange: Exchange) -> ASGIScope:
    request = exchange.request
    websocket = exchange.kind == "websocket"
    raw_path, _, query_string = request.path.partition(b"?")
    secure = request.get_extra_info("sslcontext") is not None
    scope = ASGIScope(
        type=exchange.kind,
        asgi={"version": "3.0", "spec_version": "2.4"},
        http_version=request.version.decode().removeprefix("HTTP/"),
        scheme=("ws" if websocket else "http") + "s" * secure,
        path=exchange.path,
        raw_path=raw_path,
        query_string=query_string,
        root_path="",
        headers=raw_headers(request.headers.items()),
        client=exchange.client,
        server=address(request.get_extra_info("sockname")),
        state={},
        extensions={},
    )
    if websocket:
        scope["subprotocols"] = exchange.subprotocols()
    else:
        scope["method"] = request.method.decode()
    return scope


def exchange_of_scope(given: dict[str, Any]) -> Exchange:
    scope = ASGIScope(given)
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    target: bytes = scope.get("raw_path") or quote(path).encode()
    if scope.get("query_string"):
        target += b"?" + scope["query_string"]
    headers = CIMultiDict((as_str(name), as_str(value)) for name, value in scope["headers"])
    method: str = scope.get("method", "GET")
    request = WSUpgradeRequest(method.encode(), target, b"HTTP/1.1", headers)
    if path == root or path.startswith(root + "/"):
        path = path[len(root) :] or "/"
    client = scope.get("client")
    return Exchange(scope["type"], request, path, client and (client[0], client[1]), scope)


# Header values are UTF-8 here, and other bytes surrogate escapes, as everywhere in picows.


def raw_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers
    ]


def as_str(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
