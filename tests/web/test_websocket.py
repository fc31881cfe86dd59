"""What a WebSocket is and does, wherever it runs."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from picows.web import WebSocket, WebSocketDisconnect, WebSocketProtocolError, status
from picows.web._stream import WebStream
from tests.connection.peers import CLOSE, REQUEST, TEXT, close_payload, stream
from tests.web.places import Place, Served, closed, over_both_places, over_every_place, over_own_loops, over_own_networks


class Handler:
    """A handler that a test writes: it keeps what comes of it, or what it raises."""

    def __init__(self, body: Callable[[WebSocket], Any]) -> None:
        self.body = body
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, ws: WebSocket) -> None:
        try:
            self.result.set_result(await self.body(ws))
        except Exception as error:
            self.result.set_exception(error)


def states(ws: WebSocket) -> tuple[bool, bool, bool]:
    return ws.connecting, ws.connected, ws.closed


CONNECTING, CONNECTED, CLOSED = (True, False, False), (False, True, False), (False, False, True)


@over_both_places
def test_what_is_known_of_the_client(place: Place) -> None:
    async def look(ws: WebSocket) -> None:
        assert ws.headers.getall("x-many") == ["1", "2"]
        assert ws.subprotocols == ["a", "b"]
        assert ws.query_params.getall("q") == ["a b", "\u20ac"]
        assert ws.query_params["empty"] == ""
        assert ws.path_params == {"room": "a b\u20ac", "number": -7}
        assert ws.client is not None
        assert ws.client[0] == "127.0.0.1"
        assert ws.client[1] > 0
        assert ws.state == SimpleNamespace()
        ws.state.name = "n"
        assert ws.state.name == "n"

    async def test() -> None:
        handler = Handler(look)

        async with place.handler(handler, "/rooms/{room}/{number:int}") as served:
            await served.rejected(
                "/rooms/a%20b%E2%82%AC/-7?q=a+b&q=%E2%82%AC&empty=",
                subprotocols=["a", "b"],
                additional_headers=[("X-Many", "1"), ("X-Many", "2")],
            )
            await handler.result

    place.run(test())


@over_every_place
def test_its_states(place: Place) -> None:
    async def walk(ws: WebSocket) -> None:
        assert states(ws) == CONNECTING
        assert repr(ws) == "<WebSocket '/' connecting>"
        await ws.connect()
        assert states(ws) == CONNECTED
        await ws.send("connected")
        assert await ws.receive() == "last"
        with pytest.raises(WebSocketDisconnect):
            await ws.receive()
        assert states(ws) == CLOSED
        await ws.close()

    async def test() -> None:
        handler = Handler(walk)
        async with place.handler(handler) as served, served.connect() as client:
            assert await client.recv() == "connected"
            await client.send("last")
            await client.close()
            await handler.result

    place.run(test())


@over_every_place
def test_messages_come_and_go_as_they_are(place: Place) -> None:
    messages = ["", "text \u20ac", b"", b"bytes\x00", "x" * 100_000, bytes(100_000)]

    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws:
            await ws.send(message)

    async def test() -> None:
        handler = Handler(echo)
        async with place.handler(handler) as served:
            async with served.connect() as client:
                for message in messages:
                    await client.send(message)
                assert [await client.recv() for _ in messages] == messages
            await handler.result

    place.run(test())


@over_every_place
@pytest.mark.parametrize(("code", "reason", "told"), [(1000, "", 1000), (4321, "b\u00fce", 4321), (None, "", 1005)])
def test_the_peers_close_is_told(place: Place, code: int | None, reason: str, told: int) -> None:
    """By receive, which first gives what came before, and by send."""

    async def listen(ws: WebSocket) -> None:
        await ws.connect()
        await ws.send("ready")
        assert [await ws.receive(), await ws.receive()] == ["one", "two"]
        for attempt in (ws.receive, ws.receive, lambda: ws.send("more"), lambda: ws.send_json({})):
            with pytest.raises(WebSocketDisconnect) as caught:
                await attempt()
            assert (caught.value.code, caught.value.reason) == (told, reason)
            assert str(told) in str(caught.value)

    async def test() -> None:
        handler = Handler(listen)
        async with place.handler(handler) as served, served.connect() as client:
            await client.recv()
            await client.send("one")
            await client.send("two")
            if code is None:
                client.protocol.send_close()
                client.send_data()
            else:
                await client.close(code, reason)
            await handler.result

    place.run(test())


@over_own_loops
def test_a_broken_connection_is_told(place: Place) -> None:
    async def listen(ws: WebSocket) -> None:
        await ws.connect()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (status.WS_1006_ABNORMAL_CLOSURE, "")
        assert ws.client == addresses[0]  # though it has gone
        async for _ in ws:
            raise AssertionError("there was no message")

    addresses: list[Any] = []

    async def test() -> None:
        handler = Handler(listen)
        async with place.handler(handler) as served, served.connect() as client:
            addresses.append(client.local_address)
            client.transport.abort()
            await handler.result

    place.run(test())


@over_both_places
def test_it_is_closed_with_a_code_and_a_reason(place: Place) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.connect()
        await ws.close(4000, "b\u00fce")
        assert ws.closed
        for attempt in (lambda: ws.send("more"), ws.receive):
            with pytest.raises(WebSocketDisconnect) as caught:
                await attempt()
            assert caught.value.code == 4000
        await ws.close(4001)  # nothing happens

    async def test() -> None:
        handler = Handler(leave)
        async with place.handler(handler) as served, served.connect() as client:
            assert await closed(client) == (4000, "b\u00fce")
            await handler.result

    place.run(test())


@over_own_networks
def test_it_is_closed_as_soon_as_one_side_has_said_so(place: Place) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.connect()
        closing = asyncio.ensure_future(ws.close(4000))
        await asyncio.sleep(0)
        assert states(ws) == CLOSED
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.send("more")
        assert caught.value.code == 4000
        looked.set()
        await closing

    looked: asyncio.Event

    async def test() -> None:
        nonlocal looked
        looked = asyncio.Event()
        handler = Handler(leave)
        async with place.handler(handler) as served, stream(place.net, url_of(served)) as peer:
            peer.write(REQUEST)
            await peer.reader.readuntil(b"\r\n\r\n")
            assert (await peer.receive()).payload == close_payload(4000)
            await looked.wait()
            peer.send(CLOSE, close_payload(4000))
            await handler.result

    place.run(test())


@over_both_places
@pytest.mark.parametrize(
    ("arguments", "error"),
    [((999,), ValueError), ((1005,), ValueError), ((1006,), ValueError), ((5000,), ValueError), (("1000",), TypeError),
     ((True,), TypeError), ((1000, b"no"), TypeError), ((1000, "\u20ac" * 42), ValueError)],
)  # fmt: skip
def test_wrong_ways_to_close(place: Place, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.connect()
        with pytest.raises(error, match=repr(arguments[-1]) if len(arguments) == 1 else "reason"):
            await ws.close(*arguments)
        assert ws.connected

    async def test() -> None:
        handler = Handler(leave)
        async with place.handler(handler) as served, served.connect() as client:
            await closed(client)
            await handler.result

    place.run(test())


@over_every_place
def test_a_client_is_rejected(place: Place) -> None:
    async def reject(ws: WebSocket) -> None:
        await ws.connect(close=True, close_code=4000)
        assert states(ws) == CLOSED
        with pytest.raises(RuntimeError, match="answered already"):
            await ws.connect()

    async def close(ws: WebSocket) -> None:
        await ws.close()
        assert states(ws) == CLOSED

    async def do_nothing(ws: WebSocket) -> None:
        pass

    async def test() -> None:
        for body in (reject, close, do_nothing):
            handler = Handler(body)
            async with place.handler(handler) as served:
                assert await served.rejected() == (403, b"")
                await handler.result

    place.run(test())


@over_both_places
def test_nothing_can_be_done_before_it_is_connected(place: Place) -> None:
    async def hurry(ws: WebSocket) -> None:
        for attempt in (
            ws.receive, ws.receive_json, lambda: ws.send("x"), lambda: ws.send_json({}), lambda: anext_of(ws),
            lambda: ws.send_msg({"type": "websocket.send", "text": "x"}),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match=r"connect\(\)"):
                await attempt()
        assert states(ws) == CONNECTING
        await ws.connect()
        with pytest.raises(RuntimeError, match="answered already"):
            await ws.accept()

    async def test() -> None:
        handler = Handler(hurry)
        async with place.handler(handler) as served, served.connect() as client:
            assert await closed(client) == (1000, "")
            await handler.result

    place.run(test())


async def anext_of(ws: WebSocket) -> None:
    async for _ in ws:
        pass


@over_every_place
def test_a_subprotocol_is_chosen(place: Place) -> None:
    async def choose(ws: WebSocket) -> None:
        with pytest.raises(ValueError, match=r"'c' was not offered.*\['a', 'b'\]"):
            await ws.connect("c")
        assert ws.connecting
        assert ws.subprotocol is None
        await ws.connect("b")
        assert ws.subprotocol == "b"

    async def test() -> None:
        handler = Handler(choose)
        async with place.handler(handler) as served, served.connect(subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"
            await closed(client)
            await handler.result

    place.run(test())


@over_own_networks
def test_a_header_that_cannot_be_sent_leaves_the_answer_open(place: Place) -> None:
    async def try_again(ws: WebSocket) -> None:
        for header in ((b"x\r\ny", b"value"), (b"x", b"val\nue")):
            with pytest.raises(ValueError, match=r"(?i)header|name|value"):
                await ws.send_msg({"type": "websocket.accept", "headers": [header]})
        assert ws.connecting
        await ws.connect()
        await ws.send("hello")

    async def test() -> None:
        handler = Handler(try_again)
        async with place.handler(handler) as served, served.connect() as client:
            assert await client.recv() == "hello"
            await handler.result

    place.run(test())


@over_both_places
def test_events_of_asgi_are_done(place: Place) -> None:
    async def speak(ws: WebSocket) -> None:
        await ws.send_msg({"type": "websocket.accept", "subprotocol": "a", "headers": [(b"x-told", b"yes")]})
        await ws.send_msg({"type": "websocket.send", "text": "text"})
        await ws.send_msg({"type": "websocket.send", "bytes": b"bytes"})
        await ws.send_msg({"type": "websocket.send", "text": None, "bytes": b""})
        await ws.send_msg({"type": "websocket.send", "text": ""})
        with pytest.raises(ValueError, match=r"'websocket\.nonsense'"):
            await ws.send_msg({"type": "websocket.nonsense"})
        await ws.send_msg({"type": "websocket.close", "code": 4000, "reason": "why"})

    async def test() -> None:
        handler = Handler(speak)
        async with place.handler(handler) as served, served.connect(subprotocols=["a"]) as client:
            assert client.response.headers["X-Told"] == "yes"
            assert client.subprotocol == "a"
            assert [await client.recv() for _ in range(4)] == ["text", b"bytes", b"", ""]
            assert await closed(client) == (4000, "why")
            await handler.result

    place.run(test())


@over_both_places
@pytest.mark.parametrize("message", [None, 1, ["x"]])
def test_messages_of_other_types_are_refused(place: Place, message: Any) -> None:
    async def send(ws: WebSocket) -> None:
        await ws.connect()
        with pytest.raises(TypeError, match=type(message).__name__):
            await ws.send(message)
        await ws.send("all is well")

    async def test() -> None:
        handler = Handler(send)
        async with place.handler(handler) as served, served.connect() as client:
            assert await client.recv() == "all is well"
            await closed(client)
            await handler.result

    place.run(test())


# -- how a handler ends --


@over_every_place
def test_a_handler_that_raises(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """CLOSE 1011, or 500 before it has connected; the traceback is logged."""

    async def fail(ws: WebSocket) -> None:
        if ws.query_params:
            await ws.connect()
        raise ZeroDivisionError("the reason")

    async def test() -> None:
        async with place.handler(fail) as served:
            async with served.connect("/?late=1") as client:
                assert await closed(client) == (1011, "")
            assert await served.rejected() == (500, b"500 Internal Server Error")

    place.run(test())
    records = [record for record in caplog.records if record.name == "picows.web"]
    assert [record.levelno for record in records] == [logging.ERROR] * 2
    assert all("the handler fail of '/'" in record.message for record in records)
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in records)


@over_both_places
def test_a_client_that_does_what_it_may_not(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(ws: WebSocket) -> None:
        if ws.query_params:
            await ws.connect()
        raise WebSocketProtocolError(detail="\u20ac" * 60)

    async def test() -> None:
        async with place.handler(refuse) as served:
            assert await served.rejected() == (403, ("\u20ac" * 60).encode())
            async with served.connect("/?late=1") as client:
                assert await closed(client) == (1002, "\u20ac" * 41)

    place.run(test())
    assert not [record for record in caplog.records if record.name.startswith("picows")]


@over_both_places
@pytest.mark.parametrize("wrong", [{"code": 1006}, {"code": "1002"}, {"detail": None}])
def test_a_wrong_protocol_error_is_a_failure_of_its_handler(place: Place, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(ws: WebSocket) -> None:
        raise WebSocketProtocolError(**wrong)

    async def test() -> None:
        async with place.handler(fail) as served:
            assert (await served.rejected())[0] == 500

    place.run(test())
    assert [record.message for record in caplog.records if "the handler fail of '/'" in record.message]


@over_both_places
def test_a_client_that_leaves_is_no_failure(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def wait(ws: WebSocket) -> None:
        await ws.connect()
        await ws.receive()

    async def test() -> None:
        async with place.handler(wait) as served, served.connect():
            pass

    place.run(test())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@over_own_loops
def test_a_client_that_leaves_while_it_waits_for_the_answer(place: Place) -> None:
    async def think(ws: WebSocket) -> None:
        asked.set()
        await left.wait()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.connect()
        assert caught.value.code == status.WS_1006_ABNORMAL_CLOSURE
        assert not ws.connected

    asked: asyncio.Event
    left: asyncio.Event

    async def test() -> None:
        nonlocal asked, left
        asked, left = asyncio.Event(), asyncio.Event()
        handler = Handler(think)
        async with place.handler(handler) as served:
            async with stream(place.net, url_of(served)) as peer:
                peer.write(REQUEST)
                await asked.wait()
                peer.writer.write_eof()
                await peer.lost()  # the server has seen it, and ended the connection
            left.set()
            await handler.result

    place.run(test())


@over_own_networks
def test_a_client_is_not_kept_waiting_for_ever(place: Place) -> None:
    async def think(ws: WebSocket) -> None:
        await answered.wait()
        with pytest.raises(WebSocketDisconnect):
            await ws.connect()

    answered: asyncio.Event

    async def test() -> None:
        nonlocal answered
        answered = asyncio.Event()
        handler = Handler(think)
        async with place.handler(handler, websocket_handshake_timeout=0.1) as served:
            assert (await served.rejected())[0] == 503
            answered.set()
            await handler.result

    place.run(test())


@over_own_networks
def test_answers_to_a_burst_leave_in_one_write(place: Place) -> None:
    """The engine below is the one of all coroutine interfaces, and nothing stands between it and the handler."""

    async def echo(ws: WebSocket) -> None:
        await ws.connect()
        async for message in ws:
            await ws.send(message)

    async def test() -> None:
        handler = Handler(echo)
        async with place.handler(handler) as served:
            async with stream(place.net, url_of(served)) as peer:
                peer.write(REQUEST)
                await peer.reader.readuntil(b"\r\n\r\n")
                peer.write(b"".join(peer.encode(TEXT, b"%03d" % i) for i in range(100)))
                data = await peer.reader.read(65536)
                assert len(data) == 500
                peer.send(CLOSE, close_payload(1000))
                assert (await peer.receive()).payload == close_payload(1000)
            await handler.result

    place.run(test())


def test_a_stream_without_a_connection_crashes_nothing() -> None:
    stream = WebStream()
    assert stream.end_error().code == status.WS_1006_ABNORMAL_CLOSURE
    with pytest.raises(RuntimeError, match="before the connection was made"):
        stream.send_text("x").send(None)


def url_of(served: Served) -> str:
    return f"ws://127.0.0.1:{served.port}/"
