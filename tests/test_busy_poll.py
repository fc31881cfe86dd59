"""busy_poll keeps an event loop from sleeping, nothing else, and for no longer than it should."""

from __future__ import annotations

import asyncio
import gc
import importlib
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from picows import busy_poll
from tests.connection.networks import LOOPS, Echo, Network, over_every_network

over_loops = pytest.mark.parametrize("name", LOOPS)

# Seconds of processor time that a loop with nothing to do needs for a few timers, at the very most, and that one which
# does not sleep has used up soon, even on a machine with much else to do.
WORK = 0.02


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module(name).new_event_loop()
    return loop


def run(name: str, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = new_loop(name)
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


async def sleeps() -> bool:
    began = time.thread_time()
    await asyncio.sleep(2 * WORK)
    return time.thread_time() - began < WORK / 2


async def is_awake() -> bool:
    began = time.thread_time()
    for _ in range(50):
        await asyncio.sleep(WORK)
        if time.thread_time() - began > WORK:
            return True
    return False


@over_loops
def test_a_loop_is_kept_from_sleeping(name: str) -> None:
    async def test() -> None:
        assert await sleeps()
        with busy_poll():
            assert await is_awake()
        assert await sleeps()
        with busy_poll(asyncio.get_running_loop()):
            assert await is_awake()
        assert await sleeps()

    run(name, test)


@over_loops
def test_blocks_are_counted(name: str) -> None:
    async def test() -> None:
        first, second = busy_poll(), busy_poll()
        first.__enter__()
        with second:
            first.__exit__(None, None, None)
            assert await is_awake()
        assert await sleeps()

    run(name, test)


@over_loops
def test_an_exception_leaves_the_block_as_well(name: str) -> None:
    async def test() -> None:
        with pytest.raises(LookupError), busy_poll():
            raise LookupError
        assert await sleeps()

    run(name, test)


@over_loops
def test_around_a_loop_that_runs_later(name: str) -> None:
    loop = new_loop(name)
    with busy_poll(loop):
        assert loop.run_until_complete(is_awake())
        assert loop.run_until_complete(is_awake())
    assert loop.run_until_complete(sleeps())
    with busy_poll(loop):
        loop.close()


@over_loops
def test_nothing_is_left_behind(name: str) -> None:
    loop = new_loop(name)

    async def test() -> None:
        with busy_poll():
            await asyncio.sleep(0)

    loop.run_until_complete(test())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    asyncio.set_event_loop(None)
    gc.collect()
    assert gone() is None


@over_loops
def test_others_have_their_turn_all_the_same(name: str) -> None:
    """Timers, tasks, callbacks from other threads and executors; in their order."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        with busy_poll():
            for i in range(10):
                loop.call_soon(calls.append, i)
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            assert calls == list(range(10))
            called = asyncio.Event()
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
            thread.start()
            await called.wait()
            thread.join()
            assert await loop.run_in_executor(None, sum, [1, 2]) == 3
        await loop.shutdown_default_executor()

    run(name, test)


@over_every_network
def test_messages_come_and_go(net: Network) -> None:
    async def test() -> None:
        async with net.pair(server=Echo) as (client, _):
            with busy_poll():
                for message in (b"one", b"two" * 10_000, b"three"):
                    client.transport.send(2, message)
                    assert await client.payload() == message

    net.run(test())


@over_loops
def test_only_in_the_thread_of_the_loop(name: str) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        outside, inside = busy_poll(loop), busy_poll(loop)
        inside.__enter__()
        errors: list[str] = []

        def use_here() -> None:
            for step in (outside.__enter__, lambda: inside.__exit__(None, None, None)):
                try:
                    step()
                except RuntimeError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=use_here, name="another")
        thread.start()
        thread.join()
        what = "in thread 'another', but the loop runs in another one"
        assert errors == [f"busy_poll: entered {what}", f"busy_poll: left {what}"]
        await asyncio.sleep(0)
        assert await sleeps()  # a block that was left is left

    run(name, test)


def test_wrong_arguments() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        busy_poll()
    with pytest.raises(TypeError, match="loop must be an event loop or None, got 5"):
        busy_poll(5)  # type: ignore[arg-type]
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="loop is closed"):
        busy_poll(loop)


@over_loops
def test_loops_of_many_threads(name: str) -> None:
    async def in_and_out() -> None:
        for _ in range(100):
            with busy_poll(), busy_poll():
                await asyncio.sleep(0)
        assert await sleeps()

    threads = [threading.Thread(target=run, args=(name, in_and_out)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == 1 or not any(thread.is_alive() for thread in threads)


