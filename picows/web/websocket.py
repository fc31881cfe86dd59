"""The WebSocket that handlers get, and what it needs of the connection below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Protocol, Union

from multidict import CIMultiDict, MultiDict

from ..upgrade import WSUpgradeResponse
from . import jsons, status
from .exceptions import WebSocketProtocolError, check_code
from .exchange import Exchange, as_str

Message = Union[str, bytes]
ExtraHeaders = Iterable[tuple[str, str]]

_MAX_REASON = 123  # bytes, RFC 6455 section 5.5


class Channel(Protocol):
    """A connection below a WebSocket: of our own server, or of an ASGI server."""

    @property
    def open(self) -> bool:
        """Whether it was accepted and something can still be sent."""

    async def accept(self, headers: ExtraHeaders, subprotocol: str | None) -> None: ...

    async def refuse(self, response: WSUpgradeResponse, close_code: int) -> None: ...

    def receive(self) -> Coroutine[Any, Any, Message]: ...

    def send(self, message: Message, /) -> Coroutine[Any, Any, None]: ...

    def send_text(self, message: Message, /) -> Coroutine[Any, Any, None]:
        """`bytes` are UTF-8 to be sent as text."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    def close(self, code: int, reason: str, /) -> Coroutine[Any, Any, None]:
        """Only called while it is open."""


class WebSocket:
    """A client's connection: a handler gets it by a parameter that is annotated with this class.

    It begins as `connecting`: the client has asked, and waits for the answer. :meth:`connect` makes it
    `connected`; :meth:`close`, or the end of the connection in whatever way, makes it `closed`.

    Messages are `str` and `bytes`. ``async for message in ws`` gives them until the connection ends.
    """

    def __init__(self, exchange: Exchange, channel: Channel, path_params: dict[str, Any]) -> None:
        self._exchange = exchange
        self._channel = channel
        self._connecting = True
        self._answering = False
        self._subprotocol: str | None = None
        self._path_params = path_params
        self._state: SimpleNamespace | None = None

    # What is known of the client.

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in the order of its liking."""
        return self._exchange.subprotocols()

    @property
    def subprotocol(self) -> str | None:
        """The one that it was connected with."""
        return self._subprotocol

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers of the request; names are case-insensitive, and may occur more than once."""
        return self._exchange.request.headers

    @property
    def query_params(self) -> MultiDict[str]:
        """What stands behind the question mark; a name may occur more than once."""
        return self._exchange.request.query

    @property
    def path_params(self) -> dict[str, Any]:
        """The values of the route's parameters."""
        return self._path_params

    @property
    def client(self) -> tuple[str, int] | None:
        """The client's address and port; None for a Unix domain socket."""
        return self._exchange.client

    @property
    def state(self) -> SimpleNamespace:
        """Empty: a place for what hooks and handlers want to keep with the connection."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    # Its states.

    @property
    def connecting(self) -> bool:
        """Whether the client waits to be connected or rejected."""
        return self._connecting

    @property
    def connected(self) -> bool:
        """Whether messages can be sent: it was accepted, and nobody has closed it."""
        return not self._connecting and self._channel.open

    @property
    def closed(self) -> bool:
        """Whether it was rejected or closed; messages that came before may still be received."""
        return not self._connecting and not self._channel.open

    async def connect(
        self,
        subprotocol: str | None = None,
        close: bool = False,
        close_code: int = status.WS_1000_OK,
    ) -> None:
        """Accept the connection; or reject it, by 403 Forbidden.

        :param subprotocol: one of those that the client offers
        :param close: whether to reject it
        :param close_code: what an ASGI server is told when it is rejected; clients do not see it
        :raises RuntimeError: it is not `connecting`
        :raises ValueError: the client does not offer `subprotocol`
        :raises WebSocketDisconnect: the client has gone meanwhile
        """
        if close:
            self._begin_answer("connect")
            await self._refuse(WSUpgradeResponse(HTTPStatus.FORBIDDEN), close_code)
        else:
            await self._accept(subprotocol, ())

    async def accept(self, subprotocol: str | None = None) -> None:
        """Accept the connection: the same as :meth:`connect` without `close`."""
        await self._accept(subprotocol, ())

    async def _accept(self, subprotocol: str | None, headers: ExtraHeaders) -> None:
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ValueError(
                f"subprotocol {subprotocol!r} was not offered by the client, "
                f"which offers {self.subprotocols}"
            )
        self._begin_answer("connect")
        try:
            await self._channel.accept(headers, subprotocol)
        except ValueError:
            self._answering = False  # nothing was sent
            raise
        self._connecting = False
        self._subprotocol = subprotocol
        # From here on a message costs no call of ours.
        self.__dict__.update(receive=self._channel.receive, send=self._channel.send)

    async def _refuse(self, response: WSUpgradeResponse, close_code: int) -> None:
        self._connecting = False
        await self._channel.refuse(response, close_code)

    def _begin_answer(self, method: str) -> None:
        if self._answering or not self._connecting:
            raise RuntimeError(f"{method}() was called, but {self!r} was answered already")
        self._answering = True

    # Messages.

    def receive(self) -> Coroutine[Any, Any, Message]:
        """Wait for the next message. One at a time may wait.

        :raises WebSocketDisconnect: the connection has ended, and all messages were received
        """
        raise self._not_connected("receive")

    def send(self, data: Message) -> Coroutine[Any, Any, None]:
        """Send a `str` as text or `bytes` as they are; wait while too much waits for the client.

        :raises WebSocketDisconnect: the connection has ended, or is being closed
        """
        raise self._not_connected("send")

    async def receive_json(self, loads: jsons.Loads | None = None) -> Any:
        """Wait for the next message, and decode it.

        :param loads: in place of msgspec, orjson or the standard library, the first that is installed
        :raises WebSocketProtocolError: the message is no JSON; if nobody catches it, the connection is
            closed with 1007. What a `loads` of yours raises is not changed.
        :raises WebSocketDisconnect: as :meth:`receive`
        """
        message = await self.receive()
        if loads is not None:
            return loads(message)
        try:
            return jsons.loads(message)
        except Exception as error:
            raise WebSocketProtocolError(
                f"the message is no JSON: {error}", status.WS_1007_INVALID_DATA
            ) from error

    async def send_json(self, data: Any, dumps: jsons.Dumps | None = None) -> None:
        """Encode `data`, and send it as text.

        :param dumps: in place of msgspec, orjson or the standard library, the first that is installed;
            returns a `str`, or UTF-8 as `bytes`
        :raises WebSocketDisconnect: as :meth:`send`
        """
        text = (dumps or jsons.dumps)(data)
        if self._connecting:
            raise self._not_connected("send_json")
        await self._channel.send_text(text)

    async def send_msg(self, msg: Mapping[str, Any]) -> None:
        """Do what an event of ASGI says: ``websocket.accept``, ``websocket.send`` or ``websocket.close``."""
        kind = msg.get("type")
        if kind == "websocket.send":
            text = msg.get("text")
            await self.send(msg["bytes"] if text is None else text)
        elif kind == "websocket.accept":
            headers = [(as_str(name), as_str(value)) for name, value in msg.get("headers") or ()]
            await self._accept(msg.get("subprotocol"), headers)
        elif kind == "websocket.close":
            await self.close(msg.get("code", status.WS_1000_OK), msg.get("reason") or "")
        else:
            raise ValueError(
                "msg['type'] must be 'websocket.accept', 'websocket.send' or 'websocket.close', "
                f"got {kind!r}"
            )

    def __aiter__(self) -> AsyncIterator[Message]:
        if self._connecting:
            raise self._not_connected("async for")
        return self._channel.__aiter__()

    async def close(self, code: int = status.WS_1000_OK, reason: str = "") -> None:
        """Close the connection; while it is `connecting` reject it, by 403; once `closed` do nothing.

        :param code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 section 7.4)
        :param reason: at most 123 bytes of UTF-8
        """
        check_close(code, reason)
        await self._close(code, reason, WSUpgradeResponse(HTTPStatus.FORBIDDEN))

    async def _close(self, code: int, reason: str, response: WSUpgradeResponse) -> None:
        """`response` is for a client that was not accepted."""
        if self._connecting:
            if not self._answering:
                self._answering = True
                await self._refuse(response, code)
        elif self._channel.open:
            await self._channel.close(code, reason)

    def _not_connected(self, what: str) -> RuntimeError:
        return RuntimeError(f"{what} needs a WebSocket that was accepted: await connect() before")

    def __repr__(self) -> str:
        states = ("connecting", "connected", "closed")
        (state,) = (state for state in states if getattr(self, state))
        return f"<WebSocket {self._exchange.path!r} {state}>"


def check_close(code: object, reason: object) -> None:
    check_code(code)
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {reason!r}")
    if len(reason.encode()) > _MAX_REASON:
        raise ValueError(f"reason must be at most {_MAX_REASON} bytes of UTF-8, got {reason!r}")


def shortened(reason: str) -> str:
    """As much of it as a CLOSE can hold."""
    return reason.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "ignore")
