"""The server's side of an opening handshake: what hooks and arguments make of a request."""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Optional, Union

from multidict import CIMultiDict, istr

from ...upgrade import (
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    accept_value,
    status_of,
)
from ..datastructures import Headers
from ..exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidOrigin,
    InvalidUpgrade,
    NegotiationError,
)
from ..headers import parse_connection, parse_subprotocol, parse_upgrade
from ..http11 import Request, Response
from ..typing import Origin, Subprotocol
from .connection import ServerConnection, show_request

if TYPE_CHECKING:
    from .server import Server

ProcessRequest = Callable[
    [ServerConnection, Request], Union[Awaitable[Optional[Response]], Optional[Response]]
]
ProcessResponse = Callable[
    [ServerConnection, Request, Response], Union[Awaitable[Optional[Response]], Optional[Response]]
]
SelectSubprotocol = Callable[[ServerConnection, Sequence[Subprotocol]], Optional[Subprotocol]]

_FAILED = "Failed to open a WebSocket connection"
_SWITCHING = HTTPStatus.SWITCHING_PROTOCOLS

# One object each for all connections: an open connection keeps its response.
_DATE, _SERVER = istr("Date"), istr("Server")


class Handshake:
    """What the requests to one server have in common; called for each, as a listener factory.

    :param make_connection: called with the server's side of what is common, for each request
    """

    def __init__(
        self,
        server: Server,
        make_connection: Callable[[], ServerConnection],
        *,
        origins: Sequence[Origin | re.Pattern[str] | None] | None,
        subprotocols: Sequence[Subprotocol] | None,
        select_subprotocol: SelectSubprotocol | None,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        server_header: str | None,
    ) -> None:
        self._server = server
        self._make_connection = make_connection
        self._origins = origins
        self._subprotocols = subprotocols
        self._select = select_subprotocol
        self._process_request = process_request
        self._process_response = process_response
        self._server_header = server_header
        self._date = (0, "")
        hooks = (origins, subprotocols, select_subprotocol, process_request, process_response)
        self._has_no_say = all(hook is None for hook in hooks)

    def __call__(self, request: WSUpgradeRequest) -> Any:
        connection = self._make_connection()
        if not isinstance(connection, ServerConnection):
            raise TypeError(
                f"create_connection returned {connection!r}, expected a ServerConnection"
            )
        if self._has_no_say and _asks_for_websocket(request):
            return self._accepted_at_once(connection)
        show_request(connection, request)
        if self._process_request is None and self._process_response is None:
            response, rejected = self._answer(connection, connection.request.headers, None)
            return self._result(connection, response, rejected)
        return self._decide(connection)

    def _accepted_at_once(self, connection: ServerConnection) -> WSUpgradeResponseWithListener:
        """What nearly every request gets; neither `Headers` nor a `Response` is made for it."""
        headers = CIMultiDict([(_DATE, self._now())])
        if self._server_header is not None:
            headers.add(_SERVER, self._server_header)
        return WSUpgradeResponseWithListener(WSUpgradeResponse(_SWITCHING, headers), connection)

    async def _decide(self, connection: ServerConnection) -> WSUpgradeResponseWithListener:
        request = connection.request
        response = await self._processed(
            connection, "process_request", self._process_request, request
        )
        chosen = response is not None
        response, rejected = self._answer(connection, request.headers, response)
        connection.response = response
        other = await self._processed(
            connection, "process_response", self._process_response, request, response
        )
        if other is not None:
            response, rejected = other, other.status_code != _SWITCHING
            connection.response = response
        return self._result(connection, response, rejected and not chosen)

    async def _processed(
        self,
        connection: ServerConnection,
        name: str,
        hook: Callable[..., Any] | None,
        *arguments: Any,
    ) -> Response | None:
        if hook is None:
            return None
        try:
            response = hook(connection, *arguments)
            if inspect.isawaitable(response):
                response = await response
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"{name} must return a Response or None, got {response!r}")
        except Exception as error:
            connection.logger.error("%s failed", name, exc_info=error)
            return self._internal_error(connection)
        return response

    def _answer(
        self, connection: ServerConnection, headers: Headers, response: Response | None
    ) -> tuple[Response, bool]:
        """The response with the header Server, and whether it rejects the connection."""
        rejected = response is None
        if response is None:
            response = self._accepted(connection, headers)
            rejected = response.status_code != _SWITCHING
        if self._server_header is not None:
            response.headers["Server"] = self._server_header
        return response, rejected

    def _accepted(self, connection: ServerConnection, headers: Headers) -> Response:
        """The response where no hook has decided."""
        try:
            _check_upgrade(headers)
            self._check_origin(headers)
            subprotocol = self._subprotocol(connection, headers)
        except InvalidOrigin as error:
            return connection.respond(HTTPStatus.FORBIDDEN, f"{_FAILED}: {error}.\n")
        except InvalidUpgrade as error:
            response = connection.respond(
                HTTPStatus.UPGRADE_REQUIRED,
                f"{_FAILED}: {error}.\n\nYou cannot access a WebSocket server directly "
                "with a browser. You need a WebSocket client.\n",
            )
            response.headers["Upgrade"] = "websocket"
            return response
        except InvalidHandshake as error:
            return connection.respond(HTTPStatus.BAD_REQUEST, f"{_FAILED}: {error}.\n")
        except Exception as error:
            connection.logger.error("opening handshake failed", exc_info=error)
            return self._internal_error(connection)
        accepted = Headers(
            [
                ("Date", self._now()),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_value(headers["Sec-WebSocket-Key"])),
            ]
        )
        if subprotocol is not None:
            accepted["Sec-WebSocket-Protocol"] = subprotocol
        return Response(_SWITCHING.value, _SWITCHING.phrase, accepted)

    def _internal_error(self, connection: ServerConnection) -> Response:
        text = f"{_FAILED}.\nSee server log for more information.\n"
        return connection.respond(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    def _check_origin(self, headers: Headers) -> None:
        if self._origins is None:
            return
        values = headers.get_all("Origin")
        if len(values) > 1:
            raise InvalidHeader("Origin", "multiple values")
        origin = values[0] if values else None
        for allowed in self._origins:
            if allowed == origin:
                return
            if isinstance(allowed, re.Pattern) and origin is not None and allowed.fullmatch(origin):
                return
        raise InvalidOrigin(origin)

    def _subprotocol(self, connection: ServerConnection, headers: Headers) -> Subprotocol | None:
        if self._select is None and self._subprotocols is None:
            return None
        values = headers.get_all("Sec-WebSocket-Protocol")
        offered = [name for value in values for name in parse_subprotocol(value)]
        if self._select is not None:
            return self._select(connection, offered)
        known = self._subprotocols or ()
        if not offered:
            raise NegotiationError("missing subprotocol")
        for subprotocol in known:
            if subprotocol in offered:
                return subprotocol
        raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(known)}")

    def _result(
        self, connection: ServerConnection, response: Response, rejected: bool
    ) -> WSUpgradeResponseWithListener:
        """What a listener factory returns; the log says what was answered."""
        status = _status_to_send(response)
        accepting = status == _SWITCHING
        if not accepting and self._server.logger.isEnabledFor(logging.INFO):
            what = "connection rejected" if rejected else "HTTP response sent"
            connection.logger.info("%s (%d %s)", what, response.status_code, response.reason_phrase)
        body = bytes(response.body) if response.body and not accepting else None
        headers = CIMultiDict(response.headers.raw_items())
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse(status, headers, body), connection if accepting else None
        )

    def _now(self) -> str:
        """The value of Date; many connections come in one second."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


def _status_to_send(response: Response) -> HTTPStatus:
    """Whether it is registered or not; the phrase means nothing (RFC 9112 section 4), so it need not be sent."""
    code, phrase = response.status_code, response.reason_phrase
    if not 100 <= code <= 599:
        raise ValueError(f"the status of a response must be from 100 to 599, got {code!r}")
    return status_of(code, phrase if phrase.isascii() and phrase.isprintable() else "")


def _asks_for_websocket(request: WSUpgradeRequest) -> bool:
    """As nearly every client writes it."""
    headers = request.headers
    return headers.get("Upgrade") == "websocket" and headers.get("Connection") == "Upgrade"


def _check_upgrade(headers: Headers) -> None:
    """Whether the upgrade is asked for; that it is done rightly was found out before."""
    for name, parse, wanted in (
        ("Connection", parse_connection, "upgrade"),
        ("Upgrade", parse_upgrade, "websocket"),
    ):
        values = headers.get_all(name)
        if not any(item.lower() == wanted for value in values for item in parse(value)):
            raise InvalidUpgrade(name, ", ".join(values) if values else None)
