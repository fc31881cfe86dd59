"""How a connection ends: by the application, the peer, the server, or by itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.connection.networks import Network, over_tcp_and_tls
from tests.connection.peers import CLOSE, PING, PONG, TEXT, close_payload
from tests.uvicorn.serving import ACCEPT, CONNECT, HEAD, accepted, answer_of, asking, closed_with, serving, stream, text


def closing(code: int | None = None, reason: object = None) -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


def disconnect(code: int, reason: str | None = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, **({} if reason is None else {"reason": reason})}


@over_tcp_and_tls
@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (close_payload(1000), disconnect(1000)),
        (close_payload(4001, "café".encode()), disconnect(4001, "café")),
        (b"", disconnect(1005)),
    ],
)
def test_the_peer_closes(net: Network, payload: bytes, event: dict[str, Any]) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            # All in one write: what comes before it is delivered, what comes behind is dropped.
            peer.write(peer.encode(TEXT, b"last") + peer.encode(CLOSE, payload) + peer.encode(PONG))
            assert (await closed_with(peer))[:2] == payload[:2]
            await peer.close()
            while served.state.connections:
                await asyncio.sleep(0)
            assert await call.receive() == {"type": "websocket.receive", "text": "last"}
            assert [await call.receive(), await call.receive()] == [event, event]
            with pytest.raises(OSError, match=r"^$") as caught:
                await call.send(text("late"))
            with pytest.raises(OSError, match=r"^$"):
                await call.send(closing())
            call.raise_(caught.value)

    net.run(test())


def test_who_writes_to_nobody_is_not_logged(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            peer.send(CLOSE)
            assert await call.receive() == disconnect(1005)
            with pytest.raises(OSError, match=r"^$") as caught:
                await call.send(text("late"))
            call.raise_(caught.value)
        assert not caplog.records

    net.run(test())


@over_tcp_and_tls
def test_a_connection_that_breaks_is_1006(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            peer.send(TEXT, b"last")
            await peer.close()
            assert (await call.receive())["text"] == "last"
            assert await call.receive() == disconnect(1006, None)

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize("returns", [True, False])
def test_the_application_closes(net: Network, returns: bool) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            receiving = asyncio.create_task(call.receive())
            await asyncio.sleep(0)
            await call.send(text("last"))
            await call.send(closing(3000, "reason"))
            assert await receiving == disconnect(3000, "reason")
            if returns:
                call.return_()
            for event in (text("late"), closing(), ACCEPT):
                with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
                    await call.send(event)
            assert (await peer.receive()).payload == b"last"
            assert (await peer.receive()).payload == b"\x0b\xb8reason"
            # It is still there: pings may be answered, messages are dropped, and only the answer ends it.
            peer.send(TEXT, b"crosses")
            peer.send(PING)
            await asyncio.sleep(0.01)
            assert not peer.reader.at_eof()
            assert served.state.connections
            peer.send(CLOSE, close_payload(3000))
            await peer.lost()
            await peer.close()
            await asyncio.wait_for(no_connections(served), 5)
            assert await call.receive() == disconnect(3000, "reason")
            if returns:  # and nobody is left who would take it
                with pytest.raises(OSError, match=r"^$"):
                    await call.send(text("later"))

    net.run(test())


async def no_connections(served: Any) -> None:
    while served.state.connections:
        await asyncio.sleep(0.001)


def test_a_close_needs_neither_code_nor_reason(net: Network) -> None:
    async def test() -> None:
        for event in ({"type": "websocket.close"}, closing(None, ""), closing(None, None)):
            async with accepted(net) as (_, peer, call):
                await call.send(event)
                assert (await peer.receive()).payload == b"\x03\xe8"
                peer.send(CLOSE, b"\x03\xe8")
                await peer.lost()

    net.run(test())


def test_a_long_reason_is_cut_between_characters(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            await call.send(closing(1008, "é" * 100))
            assert (await peer.receive()).payload == b"\x03\xf0" + "é".encode() * 61
            peer.send(CLOSE)

    net.run(test())


def test_a_peer_that_does_not_answer_a_close_has_its_time(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            (connection,) = served.state.connections
            assert connection.close_timeout == 10.0
            connection.close_timeout = 0.05
            await call.send(closing())
            call.return_()
            assert await closed_with(peer) == b"\x03\xe8"
            await peer.lost()
            await served.ended()

    net.run(test())


def test_an_answer_is_seen_behind_messages_that_nobody_takes(net: Network) -> None:
    async def test() -> None:
        async with accepted(net, ws_max_queue=0) as (served, peer, call):
            peer.send(TEXT, b"first")
            (connection,) = served.state.connections
            while connection.transport.is_reading():
                await asyncio.sleep(0)
            for _ in range(10):
                peer.send(TEXT, b"crosses" * 100)
            await call.send(closing())
            assert (await peer.receive()).msg_type == CLOSE
            peer.send(CLOSE, b"\x03\xe8")
            await peer.lost()
            await peer.close()
            await no_connections(served)
            assert (await call.receive())["text"] == "first"
            assert await call.receive() == disconnect(1000)

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize("outcome", [None, "a value", ZeroDivisionError("of the application")])
def test_an_application_that_ends_without_a_close_ends_the_connection(
    net: Network, outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            await call.send(text("last"))
            if isinstance(outcome, Exception):
                call.raise_(outcome)
            else:
                call.return_(outcome)
            assert [frame.payload for frame in await peer.receive_all()] == [b"last"]
            await peer.close()
            await served.ended()
        expected = {
            "NoneType": [],
            "str": ["ASGI callable should return None, but returned 'a value'."],
            "ZeroDivisionError": ["Exception in ASGI application\n"],
        }
        assert [record.getMessage() for record in caplog.records] == expected[type(outcome).__name__]

    net.run(test())


def shut_down(served: Any) -> None:
    for connection in list(served.state.connections):
        connection.shutdown()
        connection.shutdown()


@over_tcp_and_tls
def test_the_server_ends(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            receiving = asyncio.create_task(call.receive())
            await asyncio.sleep(0)
            shut_down(served)
            assert await receiving == disconnect(1012)
            with pytest.raises(OSError, match=r"^$"):
                await call.send(text("late"))
            assert await closed_with(peer) == b"\x03\xf4"
            assert await peer.receive_all() == []
            await peer.close()
            await no_connections(served)
            assert served.state.tasks
            call.return_()
            await served.ended()

    net.run(test())


def test_the_server_ends_before_the_answer(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (served, peer, call):
            shut_down(served)
            assert (await answer_of(peer))[0] == 500
            assert await call.receive() == CONNECT
            assert (await call.receive())["code"] == 1012
            with pytest.raises(OSError, match=r"^$"):
                await call.send(ACCEPT)

    net.run(test())


def test_the_server_ends_while_the_application_s_close_is_not_answered(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (served, peer, call):
            await call.send(closing(4000))
            shut_down(served)
            assert await closed_with(peer) == b"\x0f\xa0"
            assert await peer.receive_all() == []
            assert await call.receive() == disconnect(4000)

    net.run(test())


def test_tasks_and_connections_are_counted(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, stream(net, served.url) as peer:
            peer.write(HEAD % b"/" + b"\r\n")
            call = await served.calls.get()
            (connection,) = served.state.connections
            assert type(connection).__name__ == "PicowsProtocol"
            assert len(served.state.tasks) == 1
            await call.accept()
            call.return_()
            while served.state.tasks:
                await asyncio.sleep(0)
            # The application has ended, but the transport has not told yet.
            assert served.state.connections == {connection}
            await peer.lost()
            await peer.close()
            await served.ended()

    net.run(test())
