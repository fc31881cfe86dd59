"""What waits to be published: in order, as one batch for all that has gathered, and held while the broker is away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ..errors import WSBrokerError

Item = tuple[str, bytes]

MAX_BATCH = 1000


class _Waiting(NamedTuple):
    item: Item
    future: asyncio.Future[None]
    timeout: float | None


class Outbox:
    """A queue and the task that empties it.

    Batches go out one after another, so that calls keep their order, and each waits for the broker's confirmation
    once: the more publishes wait, the more go out with the next batch.

    :param send: sends a batch and waits for its confirmation; gives for each item an error or None
    """

    def __init__(self, send: Callable[[list[Item]], Awaitable[Sequence[Exception | None]]]) -> None:
        self._send = send
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._up = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def set_up(self, up: bool) -> None:
        """Whether the broker is there."""
        self._up = up
        self._wake.set()
        if not up:
            for waiting in self._waiting:
                self._limit(waiting)

    async def put(self, item: Item, timeout: float | None) -> None:
        if self._closed:
            raise WSBrokerError("the broker is closed, nothing was published")
        waiting = _Waiting(item, self._loop.create_future(), timeout)
        self._waiting.append(waiting)
        self._wake.set()
        if not self._up:
            self._limit(waiting)
        await waiting.future

    async def close(self) -> None:
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])
        for waiting in self._waiting:
            _fail(waiting, "the broker was closed, nothing was published")
        self._waiting.clear()

    def _limit(self, waiting: _Waiting) -> None:
        """The time limit counts while the broker is away; what is under way ends with its batch."""
        if waiting.timeout is not None:
            self._loop.call_later(waiting.timeout, self._expire, waiting)

    def _expire(self, waiting: _Waiting) -> None:
        if not self._up and waiting in self._waiting:
            self._waiting.remove(waiting)
            _fail(waiting, f"the broker was away for {waiting.timeout} seconds, nothing was published")

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._up and self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                # Whoever was cancelled meanwhile has published nothing.
                batch = [waiting for waiting in taken if not waiting.future.done()]
                if batch:
                    await self._send_batch(batch)

    async def _send_batch(self, batch: list[_Waiting]) -> None:
        outcome: Sequence[Exception | None]
        try:
            outcome = await self._send([waiting.item for waiting in batch])
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting, "the broker was closed before it has confirmed the message, which may have arrived or not")
            raise
        except Exception as error:
            outcome = [error] * len(batch)
        for waiting, failure in zip(batch, outcome):
            if failure is not None:
                _fail(waiting, f"the broker has not confirmed the message, which may have arrived or not: {failure}")
            elif not waiting.future.done():
                waiting.future.set_result(None)


def _fail(waiting: _Waiting, message: str) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(WSBrokerError(message))
