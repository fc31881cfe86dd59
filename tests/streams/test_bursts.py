"""One burst, one write: what is sent while further messages wait leaves together, and never later than promised."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from picows._streams import MessageStream
from tests.connection.networks import Network, over_both_loops
from tests.connection.peers import CLOSE, TEXT, close_payload, frame, looked_at
from tests.streams.streams import Suspended, arrived, at_once, raw_peer, send_texts, until


async def with_waiting(peer: Any, count: int) -> None:
    send_texts(peer, *range(count))
    await arrived(peer)


@over_both_loops
def test_a_burst_is_answered_by_one_write(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            for _ in range(2):
                await with_waiting(peer, 16)
                with looked_at(peer) as wire:
                    for i in range(15):
                        await stream.send(await stream.recv())
                        assert wire.arrived() == b"", i
                    await stream.send(await stream.recv())
                    assert wire.arrived() == b"".join(frame(b"%d" % i) for i in range(16))
                    assert stream.transport.write_buffer_size == 0

    net.run(test())


@over_both_loops
def test_a_handler_in_a_task_answers_a_burst_by_one_write(net: Network) -> None:
    """It waits for the burst itself, as handlers do."""
    seen: list[bytes] = []

    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            with looked_at(peer) as wire:

                async def echo() -> None:
                    async for message in stream:
                        await stream.send(message)
                        seen.append(wire.arrived())

                task = asyncio.ensure_future(echo())
                await asyncio.sleep(0)
                send_texts(peer, *range(16))
                await until(lambda: len(seen) == 16)
                assert seen == [b""] * 15 + [b"".join(frame(b"%d" % i) for i in range(16))]
                task.cancel()

    net.run(test())


@over_both_loops
def test_a_lone_message_is_answered_at_once(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 1)
            with looked_at(peer) as wire:
                message = await stream.recv()
                for answer in (message, "and more"):
                    await stream.send(answer)
                    assert wire.arrived() == frame(answer.encode())

    net.run(test())


@over_both_loops
def test_the_next_recv_that_waits_writes(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 3)
            with looked_at(peer) as wire:
                await stream.send(await stream.recv())
                await stream.send(await stream.recv())
                await stream.recv()  # not answered
                assert wire.arrived() == b""
                with pytest.raises(Suspended):
                    at_once(stream.recv())
                assert wire.arrived() == frame(b"0") + frame(b"1")

    net.run(test())


@over_both_loops
def test_a_handler_that_waits_for_something_else_does_not_hold_it_back(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 5)
            with looked_at(peer) as wire:
                for i in range(4):  # each time anew
                    await stream.send(await stream.recv())
                    assert wire.arrived() == b""
                    await asyncio.sleep(0)
                    assert wire.arrived() == frame(b"%d" % i)

    net.run(test())


@over_both_loops
def test_a_handler_that_is_cancelled_leaves_nothing_behind(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 2)

            async def handle() -> None:
                await stream.send(await stream.recv())
                await asyncio.get_running_loop().create_future()

            task = asyncio.ensure_future(handle())
            await asyncio.sleep(0)
            task.cancel()
            assert (await peer.receive()).payload == b"0"
            # Nor does anything wait that is sent from elsewhere.
            assert stream.transport.write_buffer_size == 0
            with looked_at(peer) as wire:
                stream.transport.send(TEXT, b"elsewhere")
                assert wire.arrived() == frame(b"elsewhere")

    net.run(test())


@over_both_loops
def test_an_error_in_send_leaves_nothing_behind(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 2)
            await stream.recv()
            await stream.send("gathered")
            with pytest.raises(TypeError):
                await stream.send(object())
            assert (await peer.receive()).payload == b"gathered"
            assert stream.transport.write_buffer_size == 0

    net.run(test())


@over_both_loops
def test_the_end_takes_what_was_gathered(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream), raw_peer(net) as (other, at_other):
            await with_waiting(peer, 2)
            await stream.send(await stream.recv())
            stream.transport.disconnect(graceful=False)
            await stream.wait_closed()
            assert stream.transport.write_buffer_size == 0
            assert at_once(stream.recv()) == "1"
            # What it gathered is no other connection's.
            with looked_at(other) as wire:
                await at_other.send("mine")
                assert wire.arrived() == frame(b"mine")

    net.run(test())


@over_both_loops
def test_what_was_gathered_leaves_before_a_close(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await with_waiting(peer, 2)
            await stream.send(await stream.recv())
            closing = asyncio.ensure_future(stream.close(1000))
            assert (await peer.receive()).payload == b"0"
            assert (await peer.receive()).payload == close_payload(1000)
            peer.send(CLOSE, close_payload(1000))
            await peer.close()
            await closing

    net.run(test())


@over_both_loops
def test_much_that_is_gathered_does_not_wait_without_bound(net: Network) -> None:
    """The sender waits as it would outside of a burst."""

    async def test() -> None:
        async with raw_peer(net, lambda: MessageStream(high=None, high_bytes=None)) as (peer, stream):
            await with_waiting(peer, 10_000)
            peer.writer.transport.pause_reading()

            async def answer() -> None:
                for _ in range(9_999):
                    await stream.recv()
                    await stream.send(bytes(10_000))

            task = asyncio.ensure_future(answer())
            await until(lambda: stream.transport.write_buffer_size > 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            assert stream.transport.write_buffer_size < 500_000
            peer.writer.transport.resume_reading()
            for _ in range(9_999):
                assert len((await peer.receive()).payload) == 10_000
            await task

    net.run(test())
