"""What waits to be published: in order, as one batch for all that has gathered, and held while the broker is away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ..errors import WSBrokerError

Item = tuple[str, bytes]


class Outbox:
    """A queue and the task that empties it.

    Batches go out one after another, so that calls keep their order, and each waits for the broker's confirmation
    once: the more publishes wait, the more go out with the next batch.

    :param send: sends a batch and waits for its confirmation; gives for each item an error or None
    """

    def __init__(self, send: Callable[[list[Item]], Awaitable[Sequence[Exception | None]]]) -> None:
        self._send = send
        self._waiting: deque[tuple[Item, asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._up = False
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def set_up(self, up: bool) -> None:
        """Whether the broker is there."""
        self._up = up
        self._wake.set()

    async def put(self, item: Item, timeout: float | None) -> None:
        if self._closed or (not self._up and timeout == 0):
            raise WSBrokerError("the broker is closed" if self._closed else "the broker is away, nothing was published")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((item, future))
        self._wake.set()
        timer = None if timeout is None else loop.call_later(timeout, self._expire, item, future, timeout)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])
        for _, future in self._waiting:
            _fail(future, "the broker was closed, nothing was published")
        self._waiting.clear()

    def _expire(self, item: Item, future: asyncio.Future[None], timeout: float) -> None:
        # What is under way already ends with its batch.
        if not self._up and (item, future) in self._waiting:
            self._waiting.remove((item, future))
            _fail(future, f"the broker was away for {timeout} seconds, nothing was published")

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._up and self._waiting:
                # Whoever was cancelled meanwhile has published nothing.
                batch = [waiting for waiting in self._waiting if not waiting[1].done()]
                self._waiting.clear()
                await self._send_batch(batch)

    async def _send_batch(self, batch: list[tuple[Item, asyncio.Future[None]]]) -> None:
        outcome: Sequence[Exception | None]
        try:
            outcome = await self._send([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                _fail(future, "the broker was closed before it has confirmed the message, which may have arrived or not")
            raise
        except Exception as error:
            outcome = [error] * len(batch)
        for (_, future), failure in zip(batch, outcome):
            if failure is not None:
                _fail(future, f"the broker has not confirmed the message, which may have arrived or not: {failure}")
            elif not future.done():
                future.set_result(None)


def _fail(future: asyncio.Future[None], message: str) -> None:
    if not future.done():
        future.set_exception(WSBrokerError(message))
