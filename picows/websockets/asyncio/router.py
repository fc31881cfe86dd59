"""Handlers by path, as the package `websockets` has them: the maps of werkzeug, which has to be installed."""

from __future__ import annotations

import inspect
import os
import ssl as ssl_module
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from ..http11 import Request, Response
from ._handshake import ProcessRequest
from .server import Server, ServerConnection, serve

if TYPE_CHECKING:
    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


class Router:
    """Chooses a handler by the path of a request; to be subclassed by who wants another choice.

    :param url_map: the paths; the endpoint of each is a handler
    :param server_name: the name of the server as clients know it; None: what the header Host says
    :param url_scheme: what the URLs of redirects begin with
    """

    def __init__(self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws") -> None:
        for rule in url_map.iter_rules():
            rule.websocket = True
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """The name of the server, for the URLs of redirects and for rules with a host or subdomain."""
        return request.headers["Host"] if self.server_name is None else self.server_name

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """The response to a request that belongs to another URL."""
        response = connection.respond(HTTPStatus.FOUND, f"Found at {url}")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """The response to a request for which there is no handler."""
        return connection.respond(HTTPStatus.NOT_FOUND, "Not Found")

    def route_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Find the handler; a `process_request`."""
        from werkzeug.exceptions import NotFound
        from werkzeug.routing import RequestRedirect

        path, _, query = request.path.partition("?")
        adapter = self.url_map.bind(
            self.get_server_name(connection, request),
            url_scheme=self.url_scheme,
            path_info=urllib.parse.unquote(path),
            query_args=query,
        )
        try:
            handler, arguments = adapter.match(websocket=True)
        except RequestRedirect as found:
            return self.redirect(connection, found.new_url)
        except NotFound:
            return self.not_found(connection)
        connection.handler, connection.handler_kwargs = handler, arguments  # type: ignore[attr-defined]
        return None

    async def handler(self, connection: ServerConnection) -> None:
        """Call the handler that was found, with the connection and the parameters in the path."""
        await connection.handler(connection, **connection.handler_kwargs)  # type: ignore[attr-defined]


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    **kwargs: Any,
) -> Server:
    """As :func:`~picows.websockets.serve`, with a handler for each path.

    .. code-block:: python

        from werkzeug.routing import Map, Rule

        url_map = Map([Rule("/rooms/<int:number>", endpoint=room)])  # calls room(websocket, number=...)
        async with route(url_map, "localhost", 8765) as server:
            await server.serve_forever()

    :param url_map: a `werkzeug.routing.Map` whose endpoints are handlers; each rule is made one for WebSockets
    :param server_name: the name of the server as clients know it, where a proxy changes the header Host
    :param ssl: True: a proxy does TLS for us, so redirects lead to ``wss://``
    :param create_router: a subclass of :class:`Router`
    """
    url_scheme = "ws" if ssl is None else "wss"
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (Router if create_router is None else create_router)(url_map, server_name, url_scheme)
    process_request: ProcessRequest | None = kwargs.pop("process_request", None)

    if process_request is None:
        kwargs["process_request"] = router.route_request
    else:
        own = process_request

        async def process_and_route(connection: ServerConnection, request: Request) -> Response | None:
            response = own(connection, request)
            if inspect.isawaitable(response):
                response = await response
            return router.route_request(connection, request) if response is None else response

        kwargs["process_request"] = process_and_route
    return serve(router.handler, *args, **kwargs)


def unix_route(url_map: Map, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """As :func:`route`, on a Unix domain socket.

    :param path: of the socket
    """
    return route(url_map, unix=True, path=path, **kwargs)
