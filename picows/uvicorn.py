"""The WebSocket class for uvicorn: ``uvicorn app:app --ws picows.uvicorn:PicowsProtocol``."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import re
from collections.abc import Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols import utils
from uvicorn.protocols.utils import (
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
)

from ._asgi import AsgiStream
from .deflate import WSDeflate
from .errors import WSHandshakeError
from .picows import ConnectionOptions, WSProtocol, adopt_upgraded
from .settings import Settings
from .upgrade import RequestReader

# Its class is newer than what this one runs on.
ClientDisconnected: type[OSError] = getattr(utils, "ClientDisconnected", ConnectionAbortedError)

__all__ = ["PicowsProtocol"]

Event = MutableMapping[str, Any]
Headers = Iterable[tuple[bytes, bytes]]

_TRACE = 5  # a level of uvicorn's below DEBUG
_MAX_HEAD_SIZE = 1024 * 1024  # bytes; uvicorn's HTTP class has read the head, and has limits of its own
_MAX_EARLY = 64 * 1024  # bytes that may wait from a client that does not wait for the answer

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")

# What a 101 says itself, or must not say. An application may pass on the headers of another answer.
_OF_THE_UPGRADE = {b"connection", b"content-length", b"transfer-encoding", b"upgrade"}
_OF_THE_UPGRADE |= {b"sec-websocket-accept", b"sec-websocket-extensions"}
_OF_THE_FRAMING = {b"connection", b"transfer-encoding"}

# What has been answered to the request.
_NOTHING, _PART, _REFUSAL, _UPGRADE = range(4)


class PicowsProtocol(asyncio.Protocol):
    """One WebSocket connection of a uvicorn server and its ASGI application.

    Name the class to uvicorn: ``uvicorn app:app --ws picows.uvicorn:PicowsProtocol``, or
    ``uvicorn.run("app:app", ws="picows.uvicorn:PicowsProtocol")``. It takes the same options as uvicorn's
    own classes, which all begin with ``ws_``.
    """

    #: How many seconds the peer may take to answer a CLOSE, and to take what was sent before.
    close_timeout: float = 10.0

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self.logger: logging.Logger = logging.getLogger("uvicorn.error")
        self.server_state = server_state
        self.app_state: dict[str, Any] = app_state or {}
        self.stream: AsgiStream = AsgiStream(self, ClientDisconnected, config.ws_max_queue)
        self.options: _Options = _connection_options(config.ws_max_size, bool(config.ws_per_message_deflate))
        self.reader: RequestReader | None = None  # until the request is answered
        self.scope: dict[str, Any] = {}
        self.connection: WSProtocol | None = None  # once it is accepted
        self.answered: int = _NOTHING
        self.closed: bool = False  # the application has closed the connection, or was refused one
        self.refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None  # not written yet
        self.chunked: bool = False
        self.drained: asyncio.Future[None] | None = None  # while the transport holds too much
        self.lost: bool = False
        self.app_running: bool = False
        self.timer: asyncio.TimerHandle | None = None

    # What the transport calls; after the upgrade, unless somebody has put this class back in its place, the
    # connection is its protocol.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.server_state.connections.add(self)
        self.client: tuple[str, int] | None = get_remote_addr(transport)
        self._trace("made")

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self._pass_on(data)
            self._hand_over()
        elif self.scope or self.lost:
            self._keep_early(data)
        elif not self.transport.is_closing():
            self._read_request(data)

    def eof_received(self) -> bool | None:
        if self.connection is not None:
            self.connection.eof_received()
        return None

    def pause_writing(self) -> None:
        if self.connection is not None:
            self.connection.pause_writing()
        else:
            self.drained = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.connection is not None:
            self.connection.resume_writing()
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.connection.connection_lost(exc)
        else:
            self.stream.end_before(1006)
            self.stream_ended()
        if exc is None:
            self.transport.close()

    def shutdown(self) -> None:
        """uvicorn's: the server ends."""
        if self.answered == _NOTHING:
            self.stream.end_before(1012)
            self._refuse(500, _TEXT, b"Internal Server Error")
        elif self.answered == _UPGRADE:
            self.stream.send_close(1012, None)
            self.stream.finish()
        else:
            self._close_transport()

    # The request.

    def _read_request(self, data: bytes) -> None:
        if self.reader is None:
            self.reader = RequestReader(
                self.options.compression, max_head_size=_MAX_HEAD_SIZE
            )
        try:
            if not self.reader.feed(data):
                return
        except WSHandshakeError as error:
            self.logger.warning("Invalid WebSocket request received: %s", error)
            response = error.response
            assert response is not None
            self.stream.end_before(1006)
            headers = [(n.encode(), v.encode()) for n, v in response.headers.items()]
            self._refuse(response.status, headers, response.body or b"")
            return
        self.scope = self._new_scope(self.reader)
        context = contextvars.copy_context()
        if getattr(self.config, "reset_contextvars", False):
            context = contextvars.Context()
        self.app_running = True
        task = context.run(self.loop.create_task, self._run_application())
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _new_scope(self, reader: RequestReader) -> dict[str, Any]:
        request = reader.request
        target, _, query = _ORIGIN.sub(b"", request.path, 1).partition(b"?")
        target = target or b"/"
        root_path = self.config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws" if self.transport.get_extra_info("sslcontext") is None else "wss",
            "server": get_local_addr(self.transport),
            "client": self.client,
            "root_path": root_path,
            "path": root_path + unquote(target.decode("ascii")),
            "raw_path": root_path.encode("ascii") + target,
            "query_string": query,
            "headers": [
                (name.lower().encode("ascii"), value.encode("utf-8", "surrogateescape"))
                for name, value in request.headers.items()
            ],
            "subprotocols": [
                name
                for line in request.headers.getall("Sec-WebSocket-Protocol", ())
                for name in map(str.strip, line.split(","))
                if name
            ],
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    def _keep_early(self, data: bytes) -> None:
        """The client sends before it was answered, or more than was answered to."""
        if self.answered != _NOTHING or self.reader is None:
            return
        self.reader.feed(data)
        if len(self.reader.rest) > _MAX_EARLY:
            self.transport.pause_reading()

    # The application.

    async def _run_application(self) -> None:
        result = None
        try:
            result = await self.config.loaded_app(self.scope, self.stream.receive, self.stream.send)
        except ClientDisconnected:
            pass
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=True)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        else:
            self._check_returned(result)
        finally:
            self.app_running = False
            self._application_ended()

    def _check_returned(self, result: object) -> None:
        if self.answered == _NOTHING and not self.lost:
            self.logger.error("ASGI callable returned without completing handshake.")
        elif self.answered == _PART and not self.lost:
            self.logger.error("ASGI callable returned without completing response.")
        elif result is not None:
            self.logger.error("ASGI callable should return None, but returned '%s'.", result)

    def _application_ended(self) -> None:
        if self.lost:
            self.stream.let_go()
        elif self.answered == _NOTHING:
            self._refuse(500, _TEXT, b"Internal Server Error")
        elif self.answered == _PART:
            self._close_transport()
        elif self.answered == _UPGRADE and not self.closed:
            self.stream.finish()

    async def send_event(self, event: Event) -> None:
        """What an application sends that is no message."""
        kind = event["type"]
        if self.closed:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}', after sending 'websocket.close' or response already completed."
            )
        if self.lost or self.stream.ended:
            raise ClientDisconnected
        if self.answered == _NOTHING:
            if kind == "websocket.accept":
                self._accept(event)
            elif kind == "websocket.close":
                self.closed = True
                self._refuse(403, _TEXT, b"")
            elif kind == "websocket.http.response.start":
                self._begin_refusal(event)
            else:
                raise _unexpected(
                    "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'", kind
                )
        elif self.answered == _PART:
            if kind != "websocket.http.response.body":
                raise _unexpected("'websocket.http.response.body'", kind)
            await self._go_on_refusing(event)
        elif kind == "websocket.close":
            self._close(event)
        else:
            raise _unexpected("'websocket.send' or 'websocket.close'", kind)

    def stream_ended(self) -> None:
        """The connection is lost."""
        self.lost = True
        self.server_state.connections.discard(self)
        self._trace("lost")
        self.reader = None
        if self.timer is not None:
            self.timer.cancel()
        self._wake()
        if not self.app_running:
            self.stream.let_go()

    # Answers.

    def _accept(self, event: Event) -> None:
        reader, transport = self.reader, self.transport
        assert reader is not None
        if transport.is_closing():
            raise ClientDisconnected
        headers = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
        headers.append((b"Sec-WebSocket-Accept", (reader.accept or "").encode()))
        if reader.extensions is not None:
            headers.append((b"Sec-WebSocket-Extensions", reader.extensions.encode()))
        subprotocol = event.get("subprotocol")
        if subprotocol is not None:
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        headers += self.server_state.default_headers
        headers += _without(_OF_THE_UPGRADE, event.get("headers"))
        head = _head(101, headers)

        self._log_answer("[accepted]")
        self.answered = _UPGRADE
        self.reader = None
        rest, reader.rest = reader.rest, b""
        connection = self.connection = WSProtocol(self.options.connections)
        self._hand_over()
        adopt_upgraded(connection, transport, reader, head, self.stream)
        interval = self.config.ws_ping_interval
        if interval and not self.stream.ended:
            self.stream.keep_alive(interval, self.config.ws_ping_timeout or None)
        if rest:
            self._pass_on(rest)

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer by all of a response that is no 101, and close the connection."""
        self.answered = _REFUSAL
        self.reader = None
        if self.scope:
            self._log_answer(str(int(status)))
        if not self.transport.is_closing():
            head = self._refusal_head(status, headers, (b"content-length", b"%d" % len(body)))
            self.transport.write(head + body)
        self.stream.end_before(1006)
        self._close_transport()

    def _begin_refusal(self, event: Event) -> None:
        status = event["status"]
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise RuntimeError(f"The status of a response must be an int from 200 to 599, got {status!r}.")
        headers = _without(_OF_THE_FRAMING, event.get("headers"))
        _head(status, headers)  # what is wrong in them is told here
        self.refusal = status, headers
        self.answered = _PART

    async def _go_on_refusing(self, event: Event) -> None:
        body = bytes(event.get("body") or b"")
        more = bool(event.get("more_body", False))
        out = b""
        if self.refusal is not None:
            status, headers = self.refusal
            self.refusal = None
            self._log_answer(str(int(status)))
            framing = None
            if status not in (204, 304) and b"content-length" not in {n.lower() for n, _ in headers}:
                self.chunked = more
                framing = (b"content-length", b"%d" % len(body))
                if more:
                    framing = (b"transfer-encoding", b"chunked")
            out = self._refusal_head(status, headers, framing)
        if self.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more else b"0\r\n\r\n"
        self.transport.write(out + body)
        if not more:
            self.answered = _REFUSAL
            self.closed = True
            self.reader = None
            self.stream.end_before(1006)
            self._close_transport()
        while self.drained is not None and not self.lost and more:
            await asyncio.wait([self.drained])
            if self.lost:
                raise ClientDisconnected

    def _refusal_head(self, status: int, headers: Headers, framing: tuple[bytes, bytes] | None) -> bytes:
        own = {b"connection", framing[0]} if framing else {b"connection"}
        lines = [*self.server_state.default_headers, *_without(own, headers)]
        if framing is not None:
            lines.append(framing)
        upgrade = any(name.lower() == b"upgrade" for name, _ in lines)
        lines.append((b"connection", b"Upgrade, close" if upgrade else b"close"))
        return _head(status, lines)

    def _close(self, event: Event) -> None:
        code = event.get("code")
        self.stream.send_close(1000 if code is None else code, event.get("reason"))
        self.closed = True
        self._limit_closing()

    # The rest.

    def _close_transport(self) -> None:
        """There was no upgrade; what was written goes out first."""
        self.transport.close()
        self._limit_closing()

    def _limit_closing(self) -> None:
        if self.timer is None:
            self.timer = self.loop.call_later(self.close_timeout, self._closing_timed_out)

    def _closing_timed_out(self) -> None:
        if self.connection is not None:
            self.stream.finish(False)
        else:
            self.transport.abort()

    def _hand_over(self) -> None:
        """Let the transport call the connection itself.

        An application that has accepted inside of `data_received`, in an eager task, did so before
        uvicorn made this class the protocol.
        """
        # A transport that knows nothing of it goes on calling what is above.
        with contextlib.suppress(AttributeError, NotImplementedError):
            self.transport.set_protocol(self.connection)  # type: ignore[arg-type]

    def _pass_on(self, data: bytes) -> None:
        """Give the connection what it has not read itself."""
        connection = self.connection
        assert connection is not None
        rest = memoryview(data)
        while rest:
            buffer: Any = connection.get_buffer(len(rest))
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            connection.buffer_updated(size)
            rest = rest[size:]

    def _wake(self) -> None:
        drained, self.drained = self.drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _log_answer(self, answer: str) -> None:
        if self.logger.isEnabledFor(logging.INFO):
            scope: Any = self.scope
            self.logger.info(
                f'%s - "WebSocket %s" {answer}', get_client_addr(scope), get_path_with_query_string(scope)
            )

    def _trace(self, what: str) -> None:
        if self.logger.isEnabledFor(_TRACE):
            prefix = "{}:{} - ".format(*self.client) if self.client else ""
            self.logger.log(_TRACE, "%sWebSocket connection %s", prefix, what)


_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


class _Options:
    """What the connections of a server have in common."""

    def __init__(self, max_size: int, compress: bool) -> None:
        self.compression: WSDeflate | None = WSDeflate() if compress else None
        arguments = {
            "websocket_handshake_timeout": None,
            "assemble_messages": True,
            "max_frame_size": max_size,
            "max_message_size": max_size,
            "compression": self.compression,
        }
        self.connections: ConnectionOptions = ConnectionOptions(Settings("server", arguments), _no_listener)


_connection_options = functools.lru_cache(_Options)


def _no_listener(request: object) -> None:
    """No request is read by the connection itself."""


def _unexpected(expected: str, kind: object) -> RuntimeError:
    return RuntimeError(f"Expected ASGI message {expected}, but got '{kind}'.")


def _without(names: Iterable[bytes], headers: Headers | None) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers or () if name.lower() not in names]


def _head(status: int, headers: Headers) -> bytes:
    """The head of a response, every line fit to be sent."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase)]
    for name, value in headers:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"a header must be a pair of bytes, not {(name, value)!r}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header (RFC 9110 section 5.1)")
        if _BAD_IN_VALUE.search(value):
            raise ValueError(f"the header {name!r} cannot have the value {value!r} (RFC 9110 section 5.5)")
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)
