"""ws_reconnect: one connection after another, for as long as its user goes on."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
import ssl
import sys
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Generic, Literal, Optional, TypeVar, Union

from .arguments import check_seconds
from .client import ClientListenerFactory, check_arguments, ws_connect
from .errors import WSInvalidMessageError, WSInvalidStatusError
from .picows import WSCloseCode, WSListener, WSTransport
from .settings import LoggerLike
from .url import parse_url

_Listener = TypeVar("_Listener", bound=WSListener)
Retry = Callable[[Exception], Union[Optional[bool], Awaitable[Optional[bool]]]]

# Besides 5xx: Request Timeout, Too Early, Too Many Requests.
_STATUSES_FOR_A_WHILE = (408, 425, 429)

# What a SOCKS proxy says of the way to the server: RFC 1928 section 6, general failure to TTL
# expired without "not allowed by ruleset", and "rejected or failed" of SOCKS4.
_SOCKS_REPLIES_FOR_A_WHILE = (1, 3, 4, 5, 6, 0x5B)

# Seconds. A Retry-After of years, by mistake or by malice, is no reason never to come back.
_LONGEST_RETRY_AFTER = 3600.0

# Seconds for the closing handshake of a connection that the user has left.
_CLOSE_TIMEOUT = 3


@dataclass(frozen=True)
class WSBackoff:
    """How long :func:`ws_reconnect` waits before it connects again.

    Each delay is `factor` times as long as the one before, until a connection has lasted for more
    than `maximum` seconds.

    :param initial: the first delay in seconds
    :param factor: how much longer each delay is than the one before, at least 1
    :param maximum: the longest delay in seconds
    :param jitter: ``"full"``: the delay is drawn at random between 0 and its full length, so that
        the clients of a server that was restarted do not all return in the same instant.
        None: it always has its full length.
    :raises ValueError, TypeError: an argument is wrong
    """

    initial: float = 0.1
    factor: float = 2
    maximum: float = 30
    jitter: Literal["full"] | None = "full"

    def __post_init__(self) -> None:
        check_seconds("initial", self.initial)
        check_seconds("maximum", self.maximum)
        if self.maximum < self.initial:
            raise ValueError(
                f"maximum must be at least initial, {self.initial!r}, got {self.maximum!r}"
            )
        if not isinstance(self.factor, (int, float)) or isinstance(self.factor, bool):
            raise TypeError(f"factor must be a number, got {self.factor!r}")
        if not 1 <= self.factor <= sys.float_info.max:
            raise ValueError(f"factor must be at least 1 and finite, got {self.factor!r}")
        if self.jitter is not None and self.jitter != "full":
            raise ValueError(f'jitter must be "full" or None, got {self.jitter!r}')

    def delays(self) -> Iterator[float]:
        """The delays in seconds, from the first one on, without an end."""
        longest = self.initial
        while True:
            yield random.uniform(0, longest) if self.jitter == "full" else longest
            longest = min(longest * self.factor, self.maximum)


def ws_reconnect(
    ws_listener_factory: ClientListenerFactory[_Listener],
    url: str,
    *,
    backoff: WSBackoff = WSBackoff(),
    retry: Retry | None = None,
    **options: Any,
) -> Connections[_Listener]:
    """Connect to a websocket server again and again: an asynchronous iterator of connections.

    ``async for transport, listener in ws_reconnect(...)`` gets a new connection, made by
    :func:`ws_connect`, for each round of the loop. The body usually awaits
    :meth:`WSTransport.wait_disconnected`; a connection that it leaves open is closed with
    WSCloseCode.OK before the next one is made, and with GOING_AWAY when the loop is left by
    ``break``, ``return`` or an exception. What the body raises ends the loop, as everywhere.

    The iterator has ``await aclose()``: it closes the connection, ends a delay or an attempt that
    is under way, and ends the loop. It may be called by another task. As an asynchronous context
    manager it calls that at the end: when the block is left the connection has ended, where a loop
    that is merely left says its CLOSE and does not wait.

    Between two attempts there is a delay, told of by one line in the log (INFO). Nothing is
    delayed before the first attempt. A `Retry-After` of the server, up to an hour, is waited for
    besides. Cancelling ends an attempt and a delay at once.

    :param ws_listener_factory:
        As for :func:`ws_connect`; called for each connection.
    :param url:
        As for :func:`ws_connect`.
    :param backoff:
        How long the delays are, a :class:`WSBackoff`.
    :param retry:
        Called with each error of :func:`ws_connect`, decides whether to try again: True or False,
        or None for the rule that holds without it. It may be a coroutine function, and get a new
        token first, for example. The rule: tried again is after an `OSError` (but not after a bad
        certificate), a :class:`asyncio.TimeoutError`, a :class:`WSInvalidMessageError`, a
        :class:`WSInvalidStatusError` of 408, 425, 429 or 5xx, and when a proxy answers so, fails to
        reach the server, or does not answer as a proxy. Any other error is raised.
    :param options:
        Everything else that :func:`ws_connect` takes. A mapping of `extra_headers` is read anew
        for each attempt.
    :raises ValueError, TypeError, WSInvalidURL: an argument is wrong; nothing was opened
    """
    if not isinstance(backoff, WSBackoff):
        raise TypeError(f"backoff must be a WSBackoff, got {backoff!r}")
    if retry is not None and not callable(retry):
        raise TypeError(f"retry must be callable or None, got {retry!r}")
    headers = options.get("extra_headers")
    if headers is not None and not isinstance(headers, Mapping):
        # An iterator could be gone through only once; what cannot at all is refused below.
        options["extra_headers"] = list(headers) if hasattr(headers, "__iter__") else headers
    settings = check_arguments(ws_listener_factory, url, options)
    return Connections(ws_listener_factory, url, backoff, retry, options, settings.logger)


class Connections(Generic[_Listener]):
    """What :func:`ws_reconnect` returns. It has at most one connection at a time."""

    _transport: WSTransport | None = None

    def __init__(
        self,
        factory: ClientListenerFactory[_Listener],
        url: str,
        backoff: WSBackoff,
        retry: Retry | None,
        options: dict[str, Any],
        logger: LoggerLike,
    ) -> None:
        self._factory = factory
        self._url = url
        self._backoff = backoff
        self._delays = backoff.delays()
        self._retry = retry
        self._options = options
        self._logger = logger
        self._connected_at: float  # once there is a transport
        self._step: asyncio.Task[tuple[WSTransport, _Listener]] | None = None
        self._over = False

    def __aiter__(self) -> Connections[_Listener]:
        return self

    async def __anext__(self) -> tuple[WSTransport, _Listener]:
        if self._step is not None:
            raise RuntimeError("the next connection is being waited for already")
        if self._over:
            raise StopAsyncIteration
        # A task of its own: when aclose() cancels it, nobody takes that for a cancellation of
        # the task that waits here.
        self._loop = asyncio.get_running_loop()
        step = self._step = asyncio.ensure_future(self._next())
        try:
            try:
                await asyncio.wait({step})
            except asyncio.CancelledError:
                await _cancel(step)
                raise
            if step.cancelled() and self._over:
                raise StopAsyncIteration
            return step.result()
        except BaseException:
            self._over = True
            raise
        finally:
            self._step = None
            del step  # which holds an error, whose traceback holds this frame

    async def aclose(self) -> None:
        """Close the connection, stop whatever is under way, and end the loop."""
        self._over = True
        if self._step is not None:
            await _cancel(self._step)
        await self._close(WSCloseCode.OK)

    async def __aenter__(self) -> Connections[_Listener]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The loop was left: a `break` or an exception drops the iterator, and tells it nothing.
        transport = self._transport
        if transport is None or transport.is_disconnected or self._loop.is_closed():
            return
        if asyncio._get_running_loop() is self._loop:
            _leave(transport)
        else:
            self._loop.call_soon_threadsafe(_leave, transport)

    async def _next(self) -> tuple[WSTransport, _Listener]:
        if self._transport is not None:
            await self._close(WSCloseCode.OK)
            if self._loop.time() - self._connected_at > self._backoff.maximum:
                self._delays = self._backoff.delays()
            await self._pause("the connection has ended")
        while True:
            try:
                transport, listener = await ws_connect(self._factory, self._url, **self._options)
            except Exception as error:
                if not await self._is_for_a_while(error):
                    raise
                # What a peer wrote may be in it: escaped, and not at any length.
                failure, at_least = f"{error!r:.500}", _retry_after(error)
            else:
                self._transport = transport
                self._connected_at = self._loop.time()
                return transport, listener
            await self._pause(f"no connection: {failure}", at_least)

    async def _close(self, code: WSCloseCode) -> None:
        transport, self._transport = self._transport, None
        if transport is not None and not transport.is_disconnected:
            await transport.close(code, timeout=_CLOSE_TIMEOUT)

    async def _is_for_a_while(self, error: Exception) -> bool:
        verdict = None if self._retry is None else self._retry(error)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        return is_for_a_while(error) if verdict is None else bool(verdict)

    async def _pause(self, why: str, at_least: float = 0) -> None:
        delay = at_least + next(self._delays)
        url = parse_url(self._url)
        self._logger.info(
            "%s:%d: %s; next attempt in %.2f s", url.host, url.port, why, delay
        )
        await asyncio.sleep(delay)


def is_for_a_while(error: Exception) -> bool:
    """Whether what :func:`ws_connect` raised may be over when it is tried again."""
    if isinstance(error, WSInvalidStatusError):
        return error.response is not None and _is_status_for_a_while(error.response.status)
    # Not imported before somebody wants a proxy, and what is not imported raises nothing.
    socks = sys.modules.get("python_socks")
    if socks is not None and isinstance(error, socks.ProxyError):
        code = error.error_code
        return code is None or code in _SOCKS_REPLIES_FOR_A_WHILE or _is_status_for_a_while(code)
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, (OSError, asyncio.TimeoutError, WSInvalidMessageError))


def _is_status_for_a_while(status: int) -> bool:
    return status in _STATUSES_FOR_A_WHILE or status >= 500


def _retry_after(error: Exception) -> float:
    """The seconds for which a server that refused us wants us to stay away (RFC 9110 10.2.3)."""
    if not isinstance(error, WSInvalidStatusError) or error.response is None:
        return 0
    value = error.response.headers.get("Retry-After", "")
    seconds = float(value) if re.fullmatch(r"[0-9]+", value) else _seconds_until(value)
    return min(max(seconds, 0), _LONGEST_RETRY_AFTER)


def _seconds_until(date: str) -> float:
    """From now to an HTTP-date; 0 if it is none."""
    # Costs more to import than picows.
    from email.utils import mktime_tz, parsedate_tz

    try:
        parsed = parsedate_tz(date)
        return 0 if parsed is None else mktime_tz(parsed) - time.time()
    except (ValueError, OverflowError):
        return 0


async def _cancel(step: asyncio.Task[Any]) -> None:
    step.cancel()
    await asyncio.wait({step})
    if not step.cancelled():
        step.exception()  # or asyncio says that nobody wanted to know


def _leave(transport: WSTransport) -> None:
    transport.send_close(WSCloseCode.GOING_AWAY)
    transport.disconnect()
