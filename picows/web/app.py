"""ASyncApp: routes and hooks, on our own server and under an ASGI server."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

from ..server import WSServer
from .asgi import Receive, Send, serve_scope
from .dispatch import Dispatcher
from .routing import Route
from .serving import Serving


class ASyncApp:
    """An application: on our own server by :meth:`run` or :meth:`serve`, and an ASGI 3 application.

    :param routes: the :class:`Route` objects. A path without parameters goes before those with
        some, and among these the first that fits
    :param event_hooks: objects, or classes of which each request gets an object of its own, with a
        method ``on_request``, called before the handler, ``on_response``, called after it has
        returned, or both. Those of `on_response` are called in reverse order

    The parameters of handlers and hooks are filled by their annotations, which may be strings:
    :class:`WebSocket`, :class:`ASGIScope`, :class:`WSUpgradeRequest`, in `on_response` also
    :class:`WSUpgradeResponse`; and those of handlers by the names in the path.

    :raises TypeError: nothing fills a parameter that has no default
    :raises ValueError: two routes have the same method and path
    """

    def __init__(self, routes: Iterable[Route], event_hooks: Iterable[Any] = ()) -> None:
        self._dispatcher = Dispatcher(routes, event_hooks or ())
        self._serving = Serving(self._dispatcher)

    async def serve(
        self,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int | None = 8000,
        **options: Any,
    ) -> WSServer:
        """Start our own server.

        :param host: as for :func:`ws_create_server`
        :param port: as for :func:`ws_create_server`
        :param options: all that :func:`ws_create_server` takes, but `assemble_messages` and
            `enable_auto_close`, which are on
        :return: the server, listening already
        """
        return await self._serving.serve(host, port, options)

    def run(
        self,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int | None = 8000,
        *,
        use_uvloop: bool | None = None,
        **options: Any,
    ) -> None:
        """Run our own server on an event loop of its own, until SIGINT (Ctrl+C) or SIGTERM.

        Then it takes no more clients and sends CLOSE 1001 to those there are; their handlers see
        :class:`WebSocketDisconnect`. What has not ended after 6 seconds is aborted or cancelled; a second
        signal aborts the connections at once.

        :param use_uvloop: whether the event loop is uvloop's; None: if it is installed
        :param options: as for :meth:`serve`
        """
        if use_uvloop is None:
            use_uvloop = importlib.util.find_spec("uvloop") is not None
        runner = importlib.import_module("uvloop") if use_uvloop else asyncio
        runner.run(self._serving.serve_until_stopped(host, port, options))

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Handle one connection of an ASGI server."""
        await serve_scope(self._dispatcher, scope, receive, send)
