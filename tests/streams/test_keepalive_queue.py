"""Connections of one event loop and one interval share the timer of their keepalive: no one notices the others."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from picows._streams import MessageStream
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.connection.networks import Network, all_at_once, over_both_loops
from tests.connection.peers import PING, PONG, Peer
from tests.streams.streams import raw_peer, say_close, until

INTERVAL = 0.05
LONG = 20.0


class KeptAlive(MessageStream):
    def __init__(self, interval: float = INTERVAL, timeout: float | None = LONG) -> None:
        super().__init__()
        self.times = interval, timeout

    def on_ws_connected(self, transport: Any) -> None:
        super().on_ws_connected(transport)
        self.began = time.monotonic()
        self.keep_alive(*self.times)


async def answer_pings(peer: Peer, count: int) -> None:
    for _ in range(count):
        frame = await peer.receive()
        assert frame.msg_type == PING
        peer.send(PONG, frame.payload)


async def kept_alive(net: Network, count: int, *times: float | None) -> None:
    """A connection of its own gets its pings, none of them too early."""
    async with raw_peer(net, lambda: KeptAlive(*times)) as (peer, stream):
        await answer_pings(peer, count)
        assert time.monotonic() - stream.began >= count * (stream.times[0] - 0.005)


@over_both_loops
def test_intervals_do_not_mix(net: Network) -> None:
    async def test() -> None:
        began = time.monotonic()
        await all_at_once(
            *(kept_alive(net, 4, INTERVAL) for _ in range(3)),
            kept_alive(net, 2, 3 * INTERVAL),
            kept_alive(net, 3, INTERVAL, INTERVAL / 5 * 4),
            kept_alive(net, 3, 0.0005, None),
        )
        assert time.monotonic() - began < LONG / 2

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("ending", [0, 1, 2, "all"])
def test_some_end_and_the_others_get_their_pings(net: Network, ending: Any) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            both = [await stack.enter_async_context(raw_peer(net, KeptAlive)) for _ in range(3)]
            await asyncio.gather(*(answer_pings(peer, 1) for peer, _ in both))
            ended = both if ending == "all" else [both[ending]]
            for peer, stream in ended:
                await say_close(peer)
                await until(lambda stream=stream: stream.ended)
            await asyncio.gather(*(answer_pings(peer, 3) for peer, stream in both if not stream.ended))
            await kept_alive(net, 2)  # also where nobody was left

    net.run(test())


@over_both_loops
def test_a_late_pong_costs_no_place_in_the_order(net: Network) -> None:
    """Who awaits its pong stands in no queue; with the pong it goes to where its ping was sent, not to the end."""
    interval = 0.1
    pings: list[str] = []

    class Named(KeptAlive):
        def __init__(self, name: str, timeout: float) -> None:
            super().__init__(interval, timeout)
            self.name = name

        def send_ping(self, payload: bytes, waiter: Any = None) -> bool:
            pings.append(self.name)
            return super().send_ping(payload, waiter)

    async def test() -> None:
        pings.clear()
        async with (
            raw_peer(net, lambda: Named("late", interval * 0.9)) as (peer, late),
            raw_peer(net, lambda: Named("other", LONG)) as (other, _),
        ):
            ping = await peer.receive()
            await answer_pings(other, 1)
            peer.send(PONG, ping.payload)
            await until(lambda: late.ended or len(pings) >= 4)

    for _ in range(20):  # on a busy machine the pong may come too late
        net.run(test())
        if len(pings) >= 4:
            break
    assert pings[:4] == ["late", "other", "late", "other"]


def test_it_sleeps_until_a_ping_is_due(net: Network) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later
        delays: list[float] = []

        def counted(delay: float, *args: Any, **options: Any) -> Any:
            delays.append(delay)
            return call_later(delay, *args, **options)

        async with raw_peer(net, KeptAlive) as (peer, _):
            await answer_pings(peer, 1)
            loop.call_later = counted  # type: ignore[method-assign,assignment]
            await answer_pings(peer, 3)
        assert 3 <= len(delays) < 30

    net.run(test())


@over_both_loops
def test_a_dead_peer_among_others(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, lambda: KeptAlive(INTERVAL, 4 * INTERVAL)) as (_, dead):
            living = [asyncio.ensure_future(kept_alive(net, 12)) for _ in range(2)]
            await until(lambda: dead.ended)
            assert not any(task.done() for task in living)
            await asyncio.gather(*living)

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_the_error_of_one_is_told_and_disturbs_no_other(net: Network, error: type[BaseException]) -> None:
    class Failing(KeptAlive):
        def send_ping(self, payload: bytes, waiter: Any = None) -> bool:
            if not told:
                raise error("no ping")
            return super().send_ping(payload, waiter)

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with contextlib.AsyncExitStack() as stack:
            peers = [(await stack.enter_async_context(raw_peer(net, kind)))[0] for kind in (KeptAlive, Failing, KeptAlive)]
            await asyncio.gather(*map(answer_pings, peers, (3, 1, 3)))
        assert [type(context["exception"]) for context in told] == [error]
        assert "keepalive" in told[0]["message"]

    told: list[dict[str, Any]] = []
    net.run(test())


@over_both_loops
def test_what_stops_the_loop_leaves_the_others_their_pings(net: Network) -> None:
    class Stopping(KeptAlive):
        def send_ping(self, payload: bytes, waiter: Any = None) -> bool:
            if not stopped:
                stopped.append(True)
                raise SystemExit(3)
            return super().send_ping(payload, waiter)

    async def test() -> None:
        async with raw_peer(net, Stopping) as (peer, _), raw_peer(net, KeptAlive) as (other, _):
            await asyncio.gather(answer_pings(peer, 1), answer_pings(other, 3))

    stopped: list[bool] = []
    loop = importlib.import_module(net.loop).new_event_loop()
    try:
        task = loop.create_task(test())
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.wait_for(task, LONG))
    finally:
        loop.close()


@over_both_loops
def test_others_keep_nothing_of_one_that_has_ended(net: Network) -> None:
    async def use(watch: Watch) -> None:
        made = [KeptAlive()]
        server = made[0]
        async with net.serve(lambda _: made.pop(), assemble_messages=True, enable_auto_close=True) as url:
            client = await net.connect(KeptAlive, url, assemble_messages=True, enable_auto_close=True)
            for stream in (server, client):
                watch.add(stream)
                watch.add(stream.transport)
            await client.close()
            await server.wait_closed()

    async def test() -> None:
        watch = Watch()
        with without_cycle_collector():
            async with raw_peer(net, KeptAlive) as (before, _):
                await use(watch)
                async with raw_peer(net, KeptAlive) as (behind, _):
                    await watch.all_gone()
                    await asyncio.gather(answer_pings(before, 1), answer_pings(behind, 1))

    net.run(test())


@over_both_loops
def test_the_end_is_told_in_the_context_of_the_connection(net: Network) -> None:
    class Named(KeptAlive):
        def on_ws_connected(self, transport: Any) -> None:
            name.set(next(names))
            self.name = name.get()
            super().on_ws_connected(transport)

        def connection_ended(self) -> None:
            told.append((self.name, name.get("none")))

    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(raw_peer(net, lambda: Named(INTERVAL, INTERVAL)))
            await until(lambda: len(told) == 3)

    name: ContextVar[str] = ContextVar("name")
    names = iter("abc")
    told: list[tuple[str, str]] = []
    net.run(test())
    assert sorted(told) == [("a", "a"), ("b", "b"), ("c", "c")]


def begin(net: Network) -> tuple[asyncio.AbstractEventLoop, Callable[[int], Awaitable[None]], contextlib.AsyncExitStack]:
    """A loop that is run now and then, and pings of one connection in it."""
    loop = importlib.import_module(net.loop).new_event_loop()
    stack = contextlib.AsyncExitStack()
    peer, _ = loop.run_until_complete(stack.enter_async_context(raw_peer(net, KeptAlive)))
    return loop, lambda count: answer_pings(peer, count), stack


def end(loop: asyncio.AbstractEventLoop, stack: contextlib.AsyncExitStack) -> None:
    loop.run_until_complete(stack.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@over_both_loops
def test_loops_that_run_in_turn_on_one_thread(net: Network) -> None:
    loops = [begin(net), begin(net)]
    try:
        for _ in range(2):
            for loop, answered, _ in loops:
                loop.run_until_complete(asyncio.wait_for(answered(2), LONG))
            # A new connection where others have waited since before the other loop ran.
            loop, answered, _ = loops[0]
            loop.run_until_complete(asyncio.wait_for(all_at_once(answered(2), kept_alive(net, 2)), LONG))
    finally:
        for loop, _, stack in loops:
            end(loop, stack)


@over_both_loops
def test_loops_in_several_threads(net: Network) -> None:
    def main() -> None:
        loop = importlib.import_module(net.loop).new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(all_at_once(*(kept_alive(net, 4) for _ in range(10))), LONG))
            loop.run_until_complete(loop.shutdown_default_executor())
            done.append(loop)
        finally:
            loop.close()

    done: list[Any] = []
    threads = [threading.Thread(target=main) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3


@over_both_loops
def test_pings_may_begin_anew(net: Network) -> None:
    """Once at a time, by the new interval; and not at all behind the end."""

    async def test() -> None:
        async with raw_peer(net, lambda: KeptAlive(LONG)) as (peer, stream):
            for interval in (LONG, 2 * LONG, INTERVAL):
                stream.keep_alive(interval, None)
            began = time.monotonic()
            await answer_pings(peer, 3)
            assert 3 * INTERVAL - 0.01 <= time.monotonic() - began < LONG / 2
            await say_close(peer)
            await stream.wait_closed()
            stream.keep_alive(INTERVAL, None)
            await asyncio.sleep(2 * INTERVAL)

    net.run(test())
