"""A process that runs connections over the faulty proxy: its event loops, their timers, and signals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import random
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import batches
from batches import Batches, Network
from faults_connection import FaultyConnection

TIME_LIMIT = 60.0  # seconds that a connection may take
SIGNALS = ("some", "all", "none")
SIGNAL_INTERVAL = 0.001


class Worker(Batches):
    """Of four blocks of connections one is interrupted by signals."""

    block = 8000

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        # Those are for the thread of the connections.
        self.peers.call(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]))
        self._timers: list[weakref.ref[asyncio.TimerHandle]] = []

    def connection(self, network: Network, index: int, chance: random.Random) -> FaultyConnection:
        return FaultyConnection(self, network, index, chance)

    @contextlib.contextmanager
    def during_block(self, number: int) -> Iterator[None]:
        if self.arguments.signals == "none" or (self.arguments.signals == "some" and number % 4 != 3):
            yield
            return
        came = 0

        def interrupted(*_: object) -> None:
            nonlocal came
            came += 1

        before = signal.signal(signal.SIGALRM, interrupted)
        signal.setitimer(signal.ITIMER_REAL, SIGNAL_INTERVAL, SIGNAL_INTERVAL)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if not came:
            self.found(-1, "no signal came")

    # What the loops' own transports leave behind when connecting is given up: each ends by itself.

    def expects_loop_error(self, context: dict[str, Any]) -> bool:
        """uvloop's TLS tells a future of the failed handshake, for which nobody waits any more."""
        return "never retrieved" in context["message"] and isinstance(context.get("exception"), ConnectionResetError)

    def expects_record(self, record: logging.LogRecord) -> bool:
        """What transports say of data that is sent between the end of TCP and their connection_lost."""
        return record.getMessage() in ("SSL connection is closed", "socket.send() raised exception.")

    def expects_warning(self, message: str) -> bool:
        """asyncio does not close the TCP connection below a TLS handshake that has not begun yet."""
        return message.startswith("unclosed transport <_SelectorSocketTransport") and "read=idle" in message

    def _expects_timer(self, timer: asyncio.TimerHandle) -> bool:
        """aiofastnet and uvloop forget their limits on the begin and the end of TLS, when TCP ends within them."""
        return any(name in repr(timer) for name in ("SSLTransportBase._check_", "SSLProtocol._start_handshake"))

    # Timers

    def new_loop(self, kind: str) -> Any:
        """One that remembers its timers."""
        timers = self._timers
        module: Any = importlib.import_module(kind)
        loop_class: Any = module.Loop if kind == "uvloop" else module.SelectorEventLoop

        class Loop(loop_class):  # type: ignore[misc]
            def call_later(self, *args: Any, **kwargs: Any) -> Any:
                timer = super().call_later(*args, **kwargs)
                timers.append(weakref.ref(timer))
                return timer

            def call_at(self, *args: Any, **kwargs: Any) -> Any:
                timer = super().call_at(*args, **kwargs)
                timers.append(weakref.ref(timer))
                return timer

        return self.watched_loop(Loop())

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0.1)
            gc.collect()
            left = self._pending()
            if not left:
                break
        for timer in left:
            self.found(-1, f"a timer is left over: {timer!r}")
        self._timers.clear()

    def _pending(self) -> list[asyncio.TimerHandle]:
        now = asyncio.get_running_loop().time()
        timers = (timer() for timer in self._timers)
        return [timer for timer in timers if timer is not None and not timer.cancelled() and timer.when() > now
                and not self._expects_timer(timer)]


def work(arguments: argparse.Namespace) -> None:
    batches.work(Worker(arguments))
