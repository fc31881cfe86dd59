"""What is logged, and where."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import struct
from typing import Any

import pytest

import picows
from picows import PICOWS_DEBUG_LL, WSDeflate, WSFrame, WSMsgType, WSProtocolError, WSTransport, ws_broadcast
from tests.connection.networks import Echo, Network, Recorder, over_every_network, over_tcp_and_tls
from tests.connection.peers import ROLES, TEXT, close_code, raw_client, raw_server, stream

over_roles = pytest.mark.parametrize("role", ROLES)


class Raising(Recorder):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        raise ValueError(frame.get_payload_as_utf8_text())


class List(logging.Handler):
    def __init__(self) -> None:
        super().__init__(1)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.split(".")[0] == "picows"]


def test_the_debug_level(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    assert picows.PICOWS_DEBUG_LL == 9
    caplog.set_level(PICOWS_DEBUG_LL, "picows")

    async def test() -> None:
        async with net.pair(server=Echo) as (client, _):
            client.transport.send(WSMsgType.TEXT, b"hello")
            await client.payload()

    net.run(test())
    records = own_records(caplog)
    assert any("TEXT" in record.getMessage() for record in records if record.name.startswith("picows.client"))
    assert any("TEXT" in record.getMessage() for record in records if record.name.startswith("picows.server"))
    for side in ("client", "server"):
        told = [record.getMessage() for record in records if record.name.startswith(f"picows.{side}")]
        assert [line.startswith("connection made by ") for line in told].count(True) == 1
        assert [line.startswith("connection lost: ") for line in told].count(True) == 1


@over_tcp_and_tls
def test_every_way_of_sending_is_logged(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(PICOWS_DEBUG_LL, "picows")

    async def test() -> None:
        compressed = {"compression": WSDeflate()}
        for options in ({}, compressed):
            async with net.pair(client_options=options, server_options=options) as pair:
                for one, other in (pair, pair[::-1]):
                    caplog.clear()
                    for size in (1, 100_000):
                        one.transport.send(WSMsgType.BINARY, bytes(size))
                        one.transport.send(WSMsgType.BINARY, memoryview(bytes(size)))
                        one.transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(14 + size), 14)
                        assert ws_broadcast([one.transport], WSMsgType.BINARY, bytes(size)) == 1
                    sent = [record.getMessage() for record in own_records(caplog)]
                    assert len(sent) == 8
                    assert all(message.startswith("sent BINARY, fin=True") for message in sent)
                    await other.take(8)

    net.run(test())


def test_no_flood_at_the_usual_levels(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """A server of thousands of connections does not fill its log, whatever they send."""
    caplog.set_level(logging.INFO, "picows")

    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url:
            for data in (b"\x83", b"junk\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b""):
                async with stream(net, url) as peer:
                    peer.write(data)
                    peer.writer.write_eof()
                    await peer.lost()
        async with raw_client(net, Echo) as (peer, listener):
            for _ in range(100):
                peer.send(TEXT, b"talk")
                await peer.receive()
            peer.write(b"\x83")
            await peer.receive_all()
            await peer.close()
            await listener.transport.wait_disconnected()

    net.run(test())
    assert len([record for record in own_records(caplog) if record.levelno >= logging.WARNING]) == 0
    assert len(own_records(caplog)) <= 12


class Picky(Recorder):
    """Refuses what comes, stumbles over it, or over the end."""

    def __init__(self, *callbacks: str, error: Exception) -> None:
        super().__init__()
        self.failing, self.error = callbacks, error

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if "on_ws_frame" in self.failing:
            raise self.error

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        if "on_ws_disconnected" in self.failing:
            raise self.error


def test_a_judgement_of_the_listener_is_one_debug_line(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "picows")

    async def test() -> None:
        error = WSProtocolError(1007, "no JSON")
        async with raw_client(net, lambda: Picky("on_ws_frame", error=error)) as (peer, listener):
            peer.send(TEXT, b"{")
            assert [close_code(frame) for frame in await peer.receive_all()] == [1007]
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())
    (record,) = own_records(caplog)
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == "on_ws_frame raised a WSProtocolError: no JSON"
    assert not record.exc_info


@over_roles
def test_a_peer_cannot_fill_the_log_by_what_the_listener_stumbles_over(
    net: Network, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "picows")

    async def test() -> None:
        listener_class = functools.partial(Picky, "on_ws_frame", "on_ws_disconnected", error=ValueError("what came"))
        async with ROLES[role](net, listener_class, disconnect_on_exception=False) as (peer, listener):
            for _ in range(100):
                peer.send(TEXT, b"stumble")
            await listener.take(100)
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())
    loud = [record for record in own_records(caplog) if record.levelno >= logging.INFO]
    assert [record.levelno for record in loud] == [logging.ERROR]
    assert loud[0].exc_info
    # Who looks closer sees them all.
    assert len([record for record in own_records(caplog) if record.exc_info]) == (101 if role == "server" else 100)


@over_roles
def test_a_slow_peer_that_is_aborted_is_one_line(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with ROLES[role](net, Recorder, max_write_buffer_size=1 << 20) as (peer, listener):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            while listener.transport.send(WSMsgType.BINARY, bytes(1 << 16)):
                pass
            await listener.disconnected.wait()
            peer.writer.transport.abort()

    net.run(test())
    (record,) = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert record.levelno == logging.WARNING


@over_every_network
@over_roles
def test_a_peer_that_resets_while_much_is_sent(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """The transports would log a warning for each further write in the turn in which they lose the connection."""
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            sock = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.writer.transport.abort()
            await asyncio.sleep(0)
            for _ in range(100):
                listener.transport.send(WSMsgType.TEXT, b"into the void")
            listener.transport.send(WSMsgType.BINARY, bytes(1 << 20))
            await listener.disconnected.wait()

    net.run(test())
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


@over_roles
def test_logger_names(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    def error_logged(**options: Any) -> logging.LogRecord:
        caplog.clear()

        async def test() -> None:
            async with ROLES[role](net, Raising, disconnect_on_exception=False, **options) as (peer, _):
                peer.send(TEXT, b"what the peer said")
                peer.send(9)
                await peer.receive()

        net.run(test())
        (record,) = [record for record in own_records(caplog) if record.levelno >= logging.WARNING]
        return record

    assert error_logged().name.startswith(f"picows.{role}")
    assert error_logged(logger_name="mine").name.startswith("picows.mine")
    assert error_logged(logger_name=logging.getLogger("picows.given")).name == "picows.given"


@over_roles
def test_a_logger_of_the_users_own(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = List()
    logger = logging.Logger("unregistered")
    logger.addHandler(handler)
    adapter = logging.LoggerAdapter(logger, {"connection": 5})

    async def test() -> None:
        for own in (logger, adapter):
            async with ROLES[role](net, Raising, disconnect_on_exception=False, logger_name=own) as (peer, _):
                peer.send(TEXT, b"oops")
                peer.send(9)
                await peer.receive()

    net.run(test())
    errors = [record for record in handler.records if record.levelno >= logging.ERROR]
    assert [record.exc_info is not None and str(record.exc_info[1]) for record in errors] == ["oops"] * 2
    assert errors[1].connection == 5  # type: ignore[attr-defined]
    assert not own_records(caplog)


def test_a_client_that_sends_no_request_in_time(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(PICOWS_DEBUG_LL, "picows")

    async def test() -> None:
        async with net.serve(lambda _: None, websocket_handshake_timeout=0.01) as url, stream(net, url) as peer:
            assert await peer.reader.read() == b""

    net.run(test())
    assert "the client did not finish the opening handshake in time" in [each.getMessage() for each in own_records(caplog)]


INJECTION = "\r\nFAKE LOG LINE \x1b[31m"


def test_what_a_peer_sent_is_escaped(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """No line break and no escape sequence of a peer gets into the log at any level."""
    caplog.set_level(1, "picows")

    async def test() -> None:
        # A reason, a path and headers; then a fault, answered by a sentence.
        async with raw_client(net, Echo) as (peer, listener):
            peer.send(TEXT, INJECTION.encode())
            peer.send(8, b"\x03\xe8" + INJECTION.encode())
            await peer.receive()
            await peer.close()
            await listener.transport.wait_disconnected()

        def factory(request: object) -> None:
            raise LookupError

        async with net.serve(factory) as url:
            for head in (
                b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET /%0d%0aFAKE HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: \x1b[31m\xff\r\nX:\r\n\r\n",
                b"\x1b[31m\nFAKE LOG LINE\n\r\n\r\n",
            ):
                async with stream(net, url) as peer:
                    peer.write(head)
                    await peer.lost()

    net.run(test())
    messages = [record.getMessage() for record in own_records(caplog)]
    assert messages
    for message in messages:
        assert message.isprintable(), message


def test_a_client_logs_no_reason_of_the_server_raw(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1, "picows")

    async def test() -> None:
        async with raw_server(net, Recorder) as (peer, listener):
            peer.send(8, b"\x03\xe8" + INJECTION.encode())
            await listener.frames.get()
            await peer.close()
            await listener.transport.wait_disconnected()
        async with raw_server(net, Recorder) as (peer, listener):
            peer.write(b"\x83")
            await peer.receive_all()
            await peer.close()
            with pytest.raises(WSProtocolError):
                await listener.transport.wait_disconnected()

    net.run(test())
    assert all(record.getMessage().isprintable() for record in own_records(caplog))


def test_no_query_of_a_request_in_the_log(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """It may hold tokens."""
    caplog.set_level(logging.INFO, "picows")

    def fail(request: object) -> None:
        raise LookupError

    async def fail_later(request: object) -> None:
        raise LookupError

    async def decide_never(request: object) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        for factory in (fail, fail_later, decide_never):
            limit = 0.05 if factory is decide_never else None
            async with net.serve(factory, websocket_handshake_timeout=limit) as url, stream(net, url) as peer:
                peer.write(b"GET /a%20b?token=secret HTTP/1.1\r\nHost: a\r\n\r\n")
                await peer.lost()

    net.run(test())
    messages = [record.getMessage() for record in own_records(caplog)]
    assert len(messages) == 3
    for message in messages:
        assert " of '/a b'" in message
        assert "secret" not in message
