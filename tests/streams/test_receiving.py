"""Messages to await: in order, without a detour, one wake-up for a burst, and none is lost."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from picows import WSFrame, WSTransport
from picows._streams import MessageStream
from tests.connection.networks import Network, over_both_loops, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_code, close_payload
from tests.connection.threads import call_in_thread
from tests.streams import bindings
from tests.streams.streams import Suspended, arrived, at_once, awaited, pair, raw_peer, send_texts, until, waiting

BOTH_ROLES = pytest.mark.parametrize("role", ["server", "client"])


@over_tcp_and_tls
@BOTH_ROLES
def test_messages_come_as_they_were_sent(net: Network, role: str) -> None:
    async def test() -> None:
        async with raw_peer(net, role=role) as (peer, stream):
            peer.send(TEXT, "gr\u00fc\u00df \U0001f600".encode())
            peer.send(BINARY, b"\xff\x00")
            peer.send(TEXT)
            peer.send(BINARY)
            peer.send(TEXT, b"zwei T", fin=False)
            peer.send(CONTINUATION, "eile \u20ac".encode())
            peer.send(BINARY, bytes(300_000))
            expected = ["gr\u00fc\u00df \U0001f600", b"\xff\x00", "", b"", "zwei Teile \u20ac", bytes(300_000)]
            assert [await stream.recv() for _ in expected] == expected

    net.run(test())


@over_both_loops
def test_what_waits_is_received_without_suspending(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            send_texts(peer, *range(100))
            await arrived(peer)
            assert at_once(stream.recv()) == "0"
            assert at_once(awaited(stream.recv())) == "1"
            assert waiting(stream) == [str(i) for i in range(2, 100)]
            # The queue begins anew when it has been empty.
            send_texts(peer, *range(5))
            await arrived(peer)
            assert waiting(stream) == ["0", "1", "2", "3", "4"]

    net.run(test())


@over_both_loops
def test_the_order_stays_while_the_queue_grows(net: Network) -> None:
    """With places before its beginning that are free again."""

    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            sent = taken = 0
            for more, fewer in ((5, 3), (6, 5), (20, 1), (3, 20), (200, 7), (1, 199)):
                send_texts(peer, *range(sent, sent + more))
                sent += more
                await arrived(peer)
                for _ in range(fewer):
                    assert at_once(stream.recv()) == str(taken)
                    taken += 1
            assert waiting(stream) == []
            assert taken == sent

    net.run(test())


@over_both_loops
def test_a_waiter_is_woken_once_for_a_burst(net: Network) -> None:
    suspended = 0

    @types.coroutine
    def counted(operation: Any) -> Generator[Any, None, Any]:
        nonlocal suspended
        while True:
            try:
                future = operation.send(None)
            except StopIteration as done:
                return done.value
            suspended += 1
            yield future

    async def test() -> None:
        async with raw_peer(net) as (peer, stream):

            async def receive() -> list[str]:
                return [await counted(stream.recv()) for _ in range(50)]

            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            send_texts(peer, *range(50))
            assert await task == [str(i) for i in range(50)]
            assert suspended == 1

    net.run(test())


@over_both_loops
def test_recv_is_a_coroutine(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            send_texts(peer, *range(4))
            unused = stream.recv()
            assert isinstance(unused, Coroutine)
            unused.close()
            assert await asyncio.create_task(stream.recv()) == "0"
            assert await asyncio.wait_for(stream.recv(), 5) == "1"
            assert await asyncio.gather(stream.recv()) == ["2"]
            operation = stream.recv()
            assert await operation == "3"
            with pytest.raises(RuntimeError, match="awaited already"):
                await operation

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_recv_cancelled_as_a_message_arrives_loses_nothing(net: Network, when: str) -> None:
    class Cancelling(MessageStream):
        task: asyncio.Task[Any] | None = None

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if self.task is not None and when == "before":
                self.task.cancel()
            super().on_ws_frame(transport, frame)
            if self.task is not None and when == "behind":
                self.task.cancel()

    async def test() -> None:
        async with raw_peer(net, Cancelling) as (peer, stream):
            stream.task = asyncio.ensure_future(awaited(stream.recv()))
            await asyncio.sleep(0)
            send_texts(peer, "kept")
            with pytest.raises(asyncio.CancelledError):
                await stream.task
            stream.task = None
            assert await stream.recv() == "kept"

    net.run(test())


@over_tcp_and_tls
def test_a_recv_cancelled_at_any_step_loses_nothing(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            received = []
            for steps in range(12):
                task = asyncio.ensure_future(stream.recv())
                send_texts(peer, steps)
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                received += await asyncio.gather(task, return_exceptions=True)
            received = [outcome for outcome in received if not isinstance(outcome, asyncio.CancelledError)]
            while len(received) < 12:
                received.append(await stream.recv())
            assert received == [str(i) for i in range(12)]

    net.run(test())


@over_both_loops
def test_a_second_recv_is_an_error_that_says_so(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            first = asyncio.ensure_future(stream.recv())
            await asyncio.sleep(0)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="another coroutine waits in recv"):
                    await stream.recv()
            send_texts(peer, "for the first", "for the next")
            assert await first == "for the first"
            assert await stream.recv() == "for the next"

    net.run(test())


def test_a_second_recv_is_one_until_the_first_has_run(net: Network) -> None:
    """It was woken, and the message is its own."""
    outcome: list[Any] = []

    class Impatient(MessageStream):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            with pytest.raises(RuntimeError, match="another coroutine waits in recv"):
                at_once(self.recv())
            outcome.append("refused")

    async def test() -> None:
        async with raw_peer(net, Impatient) as (peer, stream):
            first = asyncio.ensure_future(stream.recv())
            await asyncio.sleep(0)
            send_texts(peer, "message")
            assert await first == "message"
            assert outcome == ["refused"]

    net.run(test())


def leave_by_close(operation: Any) -> None:
    operation.close()


def leave_by_throw(operation: Any) -> None:
    with pytest.raises(ValueError, match="thrown"):
        operation.throw(ValueError("thrown"))


def leave_by_throw_of_a_class(operation: Any) -> None:
    with pytest.raises(KeyError):
        operation.throw(KeyError)


def forget(operation: Any) -> None:
    del operation


def resume_too_early(operation: Any) -> None:
    with pytest.raises(RuntimeError, match="before the future that it waits for was done"):
        operation.send(None)


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_throw, leave_by_throw_of_a_class, forget, resume_too_early])
def test_another_recv_may_follow_one_that_was_left(net: Network, leave: Callable[[Any], None]) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            operations = [stream.recv()]
            operations[0].send(None)
            leave(operations.pop())
            task = asyncio.ensure_future(stream.recv())
            await asyncio.sleep(0)
            send_texts(peer, "message")
            assert await task == "message"

    net.run(test())


def test_the_wrong_thread(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            send_texts(peer, "kept")
            await arrived(peer)
            for name, call in {
                "recv": lambda: at_once(stream.recv()),
                "send": lambda: at_once(stream.send("lost")),
                "drain": lambda: at_once(stream.drain()),
                "close": lambda: asyncio.run(stream.close()),
                "wait_closed": lambda: asyncio.run(stream.wait_closed()),
            }.items():
                ident, error = call_in_thread(call)
                assert isinstance(error, RuntimeError), name
                for part in (f"{name}()", str(ident), str(threading.get_ident())):
                    assert part in str(error)
            assert await stream.recv() == "kept"
            await stream.send("the first")
            assert (await peer.receive()).payload == b"the first"

    net.run(test())


def test_before_the_connection_is_made() -> None:
    stream = MessageStream()
    assert (stream.transport, stream.close_code, stream.close_reason, stream.ended) == (None, None, None, False)
    for name, operation in {
        "recv": stream.recv(),
        "send": stream.send("early"),
        "drain": stream.drain(),
        "close": stream.close(),
        "wait_closed": stream.wait_closed(),
    }.items():
        with pytest.raises(RuntimeError, match=rf"^{name}\(\) was called before the connection was made"):
            at_once(operation)


def test_callbacks_check_their_arguments() -> None:
    stream: Any = MessageStream()
    with pytest.raises(TypeError, match="frame is None"):
        stream.on_ws_frame(None, None)
    with pytest.raises(TypeError, match="transport is None"):
        stream.on_ws_connected(None)


@over_both_loops
def test_control_frames_go_to_the_class_on_top(net: Network) -> None:
    class Watching(MessageStream):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, bytes]] = []

        def ping_received(self, frame: WSFrame) -> None:
            self.seen.append(("ping", frame.get_payload_as_bytes()))

        def pong_received(self, frame: WSFrame) -> None:
            self.seen.append(("pong", frame.get_payload_as_bytes()))

        def close_received(self, frame: WSFrame) -> None:
            self.seen.append(("close", frame.get_payload_as_bytes()))

        def connection_ended(self) -> None:
            self.seen.append(("ended", b""))

    async def test() -> None:
        async with raw_peer(net, Watching, enable_auto_pong=False) as (peer, stream):
            peer.send(PING, b"1")
            peer.send(PONG, b"2")
            send_texts(peer, "3")
            peer.send(CLOSE, close_payload(1000, b"4"))
            await peer.receive_all()
            await peer.close()
            await stream.wait_closed()
            assert stream.seen == [("ping", b"1"), ("pong", b"2"), ("close", close_payload(1000, b"4")), ("ended", b"")]
            assert waiting_texts(stream) == ["3"]

    def waiting_texts(stream: MessageStream) -> list[Any]:
        return [at_once(stream.recv())]

    net.run(test())


@over_both_loops
def test_a_dialect_decides_what_a_message_is(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bindings.Dialect) as (peer, stream):
            send_texts(peer, "one", "nothing", "two")
            await arrived(peer)
            assert stream.take_now() == b"ONE"
            assert stream.take_now() == b"TWO"
            assert stream.take_now() is None
            with pytest.raises(Suspended):
                at_once(stream.recv())
            stream.send_at_once(TEXT, "three")
            await stream.sending_as(BINARY, "four")
            assert [(got.msg_type, got.payload) for got in (await peer.receive(), await peer.receive())] == [
                (TEXT, b"three"),
                (BINARY, b"four"),
            ]
            send_texts(peer, "five", "wrong", "six")
            assert close_code(await peer.receive()) == 1011
            await peer.close()
            await stream.wait_closed()
            assert stream.take_now() == b"FIVE"
            assert stream.take_now() is None

    net.run(test())


def test_a_dialect_may_end_the_messages_itself(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bindings.Dialect) as (peer, stream):
            send_texts(peer, "one")
            await arrived(peer)
            stream.end_here()
            send_texts(peer, "two")
            await arrived(peer)
            assert await stream.recv() == b"ONE"
            with pytest.raises(ConnectionResetError):
                await stream.recv()

    net.run(test())


@over_both_loops
def test_two_streams_talk(net: Network) -> None:
    async def test() -> None:
        async with pair(net) as (client, server):
            await client.send("question")
            assert await server.recv() == "question"
            await server.send(b"answer")
            assert await client.recv() == b"answer"
            await asyncio.gather(client.close(1000, "done"), until(lambda: server.ended))
            assert (server.close_code, server.close_reason) == (1000, "done")
            assert [message async for message in server] == []

    net.run(test())
