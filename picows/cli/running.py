"""One command on an event loop of its own, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from python_socks import ProxyError

from ..errors import WSError


def fail(problem: object) -> int:
    """Tell why it went wrong; the exit code for that."""
    print(f"picows: {problem}", file=sys.stderr)
    return 1


def run(
    main: Coroutine[Any, Any, int],
    options: argparse.Namespace,
    stop_signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> int:
    """Run a command to its end; the exit code.

    The signals cancel it. One that ends well all the same, as a server does, decides on the code
    itself.
    """
    try:
        loop = new_event_loop(options.loop)
    except ImportError:
        main.close()
        return fail("--loop uvloop: uvloop is not installed")
    signals: list[int] = []
    try:
        asyncio.set_event_loop(loop)
        task = loop.create_task(main)
        for number in stop_signals:
            _cancel_on(loop, number, task, signals)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            return 128 + signals[0] if signals else 1
        except BrokenPipeError:
            # Whoever reads our output has gone. Nothing of it may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, asyncio.TimeoutError, WSError, ProxyError, ValueError) as error:
            return fail(error)
        finally:
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _end_tasks() -> None:
    """Cancel what is left, as :func:`asyncio.run` does: handlers that do not see that their client has gone."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _cancel_on(
    loop: asyncio.AbstractEventLoop, number: int, task: asyncio.Task[int], signals: list[int]
) -> None:
    def cancel() -> None:
        signals.append(number)
        task.cancel()

    # Windows has no such thing; Ctrl+C is a KeyboardInterrupt there.
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(number, cancel)


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """The event loop that ``--loop`` names.

    :raises ImportError: uvloop is wanted, and not installed
    """
    if name == "asyncio":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
