"""A time limit on what the current task does, which tells what it waited for."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast


class Deadline:
    """Bounds a block of the current task: what it waits for when the time is over becomes a TimeoutError.

    (asyncio.timeout() came with Python 3.11, and wait_for() would need a task of its own.)
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        self.waits_for = ""
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def __enter__(self) -> Deadline:  # noqa: PYI034 - Self came with Python 3.11
        if self._seconds is not None:
            self._task = cast("asyncio.Task[Any]", asyncio.current_task())
            # From Python 3.11 on a task counts who wants to cancel it.
            if sys.version_info >= (3, 11):
                self._cancelling = self._task.cancelling()
            self._timer = self._loop.call_later(self._seconds, self._interrupt)
        return self

    def _interrupt(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over:
            return
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancelling:
            return  # somebody else has cancelled it as well
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise asyncio.TimeoutError(
                f"no connection within {self._seconds:g} seconds (connect_timeout): "
                f"still waiting for {self.waits_for}"
            ) from error
