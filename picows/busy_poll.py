"""busy_poll: an event loop that asks for news all the time instead of sleeping until some come."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

# How often each loop was asked not to sleep, and what keeps it from that. The loops of several
# threads come here, hence the lock.
_awake: dict[asyncio.AbstractEventLoop, _Awake] = {}
_lock = threading.Lock()


def busy_poll(
    loop: asyncio.AbstractEventLoop | None = None,
) -> contextlib.AbstractContextManager[None]:
    """Keep an event loop from sleeping, inside of a ``with`` block.

    A loop with nothing to do sleeps in the kernel, and being woken up is the larger part of a
    short round trip. Inside of the block the loop looks for received data, timers and callbacks
    again and again. This takes all of a processor core, so it is for the few programs that have
    one to spare. Everything on the loop runs as before, and in the same order. Other threads of
    the process are slowed down by it, except on free-threaded builds of Python.

    Blocks may be nested and may overlap: the loop sleeps again when the last of them is left. A
    block around ``loop.run_forever()``, which is entered while the loop does not run, is fine.

    :param loop:
        The event loop, of asyncio, uvloop or anyone else. None: the running one.
    :raises RuntimeError: `loop` is None and none is running, or it is closed; when the block is
        entered or left: the loop is running, but not in this thread
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an event loop or None, got {loop!r}")
    if loop.is_closed():
        raise RuntimeError("loop is closed")
    return _busy_polling(loop)


@contextlib.contextmanager
def _busy_polling(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    if _runs_elsewhere(loop):
        raise _wrong_thread("entered")
    with _lock:
        awake = _awake.get(loop)
        if awake is None:
            awake = _awake[loop] = _Awake(loop)
        awake.blocks += 1
    try:
        yield
    finally:
        if _runs_elsewhere(loop):
            loop.call_soon_threadsafe(_leave, loop)
            raise _wrong_thread("left")
        _leave(loop)


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    with _lock:
        awake = _awake[loop]
        awake.blocks -= 1
        if awake.blocks == 0:
            del _awake[loop]
            awake.end()


class _Awake:
    """A loop that has a callback to run does not sleep: here is always one more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.blocks = 0
        self._loop = loop
        self._run()

    def _run(self) -> None:
        # Runs in the next turn, after the loop has looked at its sockets and timers.
        self._handle = self._loop.call_soon(self._run)

    def end(self) -> None:
        self._handle.cancel()


def _runs_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running() and asyncio._get_running_loop() is not loop


def _wrong_thread(what: str) -> RuntimeError:
    thread = threading.current_thread().name
    return RuntimeError(f"busy_poll: {what} in thread {thread!r}, but the loop runs in another one")
