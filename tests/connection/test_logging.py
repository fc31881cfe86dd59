"""What is logged, and where."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import picows
from picows import PICOWS_DEBUG_LL, WSDeflate, WSFrame, WSMsgType, WSProtocolError, WSTransport, ws_broadcast
from tests.connection.networks import Echo, Network, Recorder
from tests.connection.peers import ROLES, TEXT, raw_client, raw_server, stream

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
