"""What happens to a request: its route, the hooks around the handler, and the end."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from multidict import CIMultiDict

from ..upgrade import WSUpgradeRequest, WSUpgradeResponse
from . import status
from .exceptions import WebSocketDisconnect, WebSocketProtocolError
from .exchange import ASGIScope, Exchange
from .injection import Injection, Source
from .responses import error_response, not_allowed, response_of
from .routing import GET, WEBSOCKET, Route, Router
from .websocket import Channel, WebSocket, shortened

logger: logging.Logger = logging.getLogger("picows.web")


class Call:
    """What handlers and hooks can be filled with, for one request."""

    def __init__(
        self, exchange: Exchange, path_params: dict[str, Any], websocket: WebSocket | None = None
    ) -> None:
        self.exchange = exchange
        self.path_params = path_params
        self.websocket = websocket
        self.response: WSUpgradeResponse | None = None


_PAGES = "GET, HEAD, OPTIONS"

# Who asks for one of these is called for nothing else.
_WEBSOCKET: dict[type, Source] = {WebSocket: lambda call: call.websocket}
_RESPONSE: dict[type, Source] = {WSUpgradeResponse: lambda call: call.response}
_ALWAYS: dict[type, Source] = {
    ASGIScope: lambda call: call.exchange.scope,
    WSUpgradeRequest: lambda call: call.exchange.request,
}


def value_of(name: str) -> Source:
    return lambda call: call.path_params[name]


def handler_injection(route: Route) -> Injection:
    by_class = _ALWAYS if route.method == GET else {**_WEBSOCKET, **_ALWAYS}
    where = f"the handler {route.name} of {route.path!r}"
    injection = Injection(route.handler, where, by_class, route.parameters, value_of)
    return injection


class Hook:
    """One of the application's event hooks: an object, or a class of which each request gets its own."""

    def __init__(self, hook: Any) -> None:
        self._make: Callable[[], Any] = hook if isinstance(hook, type) else lambda: hook
        self._injections: dict[str, Injection] = {}
        sample = self._make()
        name = getattr(hook, "__name__", type(hook).__name__)
        for event, classes in (
            ("on_request", _WEBSOCKET),
            ("on_response", {**_WEBSOCKET, **_RESPONSE}),
        ):
            function = getattr(sample, event, None)
            if function is not None:
                by_class = {**classes, **_ALWAYS}
                where = f"the hook {name}.{event}"
                self._injections[event] = Injection(function, where, by_class, {}, value_of)
        if not self._injections:
            raise TypeError(f"an event hook needs a method on_request or on_response, got {hook!r}")

    def made(self) -> Callable[[str, Call], Any]:
        """What to call for an event of one request."""
        hook = self._make()

        async def tell(event: str, call: Call) -> None:
            injection = self._injections.get(event)
            if injection is not None and is_meant(injection, call):
                await result_of(getattr(hook, event)(**injection.arguments(call)))

        return tell


def is_meant(injection: Injection, call: Call) -> bool:
    unwanted = _RESPONSE if call.websocket is not None else _WEBSOCKET
    return injection.classes.isdisjoint(unwanted)


async def result_of(result: Any) -> Any:
    """Handlers of pages and hooks may be coroutine functions or plain ones."""
    return await result if inspect.isawaitable(result) else result


class Dispatcher:
    """The routes and hooks of an application."""

    def __init__(self, routes: Iterable[Route], event_hooks: Iterable[Any]) -> None:
        self._router = Router(routes)
        self._injections = {route: handler_injection(route) for route in self._router.routes}
        self._hooks = [Hook(hook) for hook in event_hooks]

    async def websocket(self, exchange: Exchange, channel: Channel) -> None:
        """Handle a client that wants a WebSocket, to its end."""
        # The client may go at any time, before it gets its answer too.
        with contextlib.suppress(WebSocketDisconnect):
            await self._websocket(exchange, channel)

    async def _websocket(self, exchange: Exchange, channel: Channel) -> None:
        found = self._router.find(WEBSOCKET, exchange.path)
        if found is None:
            await channel.refuse(self._no_route(GET, exchange), status.WS_1000_OK)
            return
        route, path_params = found
        ws = WebSocket(exchange, channel, path_params)
        try:
            await self._run(route, Call(exchange, path_params, ws))
            await ws.close()
        except WebSocketDisconnect:
            await ws.close()  # a handler may raise it, too
        except WebSocketProtocolError as error:
            response = error_response(HTTPStatus.FORBIDDEN, error.detail)
            await ws._close(error.code, shortened(error.detail), response)
        except Exception:
            log_failure(route)
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR)
            await ws._close(status.WS_1011_INTERNAL_ERROR, "", response)

    async def get(self, exchange: Exchange) -> WSUpgradeResponse:
        """The answer to a plain request; for HEAD too, whose server leaves out the body."""
        method = exchange.request.method
        if method == b"OPTIONS":
            # What load balancers ask whether the server is there.
            return WSUpgradeResponse(HTTPStatus.NO_CONTENT, CIMultiDict(Allow=_PAGES))
        if method not in (b"GET", b"HEAD"):
            return not_allowed(f"the method must be one of {_PAGES}", _PAGES)
        found = self._router.find(GET, exchange.path)
        if found is None:
            return self._no_route(WEBSOCKET, exchange)
        route, path_params = found
        try:
            call = Call(exchange, path_params)
            await self._run(route, call)
            assert call.response is not None
            return call.response
        except WebSocketProtocolError as error:
            return error_response(HTTPStatus.FORBIDDEN, error.detail)
        except Exception:
            log_failure(route)
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _run(self, route: Route, call: Call) -> None:
        hooks = [hook.made() for hook in self._hooks]
        for tell in hooks:
            await tell("on_request", call)
        if call.websocket is not None and call.websocket.closed:
            return  # a hook has rejected it
        result = await result_of(route.handler(**self._injections[route].arguments(call)))
        if route.method == GET:
            call.response = response_of(result)
        for tell in reversed(hooks):
            await tell("on_response", call)

    def _no_route(self, other_method: str, exchange: Exchange) -> WSUpgradeResponse:
        if self._router.find(other_method, exchange.path) is None:
            return error_response(HTTPStatus.NOT_FOUND)
        if other_method == WEBSOCKET:
            return not_allowed("this is a WebSocket: the request has to ask for an upgrade", "")
        return not_allowed("this is no WebSocket, the request asked for one", "GET")


def log_failure(route: Route) -> None:
    logger.exception("the handler %s of %r, or a hook around it, failed", route.name, route.path)
