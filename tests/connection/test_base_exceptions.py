"""What is no Exception and leaves a callback all the same: CancelledError and its kin, and what ends the program."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
import traceback
import weakref
from collections.abc import Awaitable
from typing import Any

import pytest

from picows import WSAutoPingStrategy, WSFrame, WSInvalidStatusError, WSMsgType, WSProtocolError, WSTransport
from tests.connection.networks import (
    LOOPS,
    Echo,
    Network,
    Received,
    Recorder,
    cut,
    over_both_loops,
    over_every_network,
)
from tests.connection.peers import (
    CLOSE,
    PING,
    PONG,
    REQUEST,
    ROLES,
    TEXT,
    Peer,
    close_payload,
    raw_client,
    raw_server,
    stream,
)
from tests.connection.producers import fill

over_roles = pytest.mark.parametrize("role", ROLES)


class Odd(BaseException):
    pass


ERRORS = [asyncio.CancelledError, Odd, GeneratorExit, StopIteration]
over_errors = pytest.mark.parametrize("error", ERRORS)


class Raising(Echo):
    """Raises from one of its callbacks, each time or once."""

    def __init__(self, callback: str, error: BaseException, *, once: bool = True) -> None:
        super().__init__()
        self.callback, self.error, self.once = callback, error, once

    def _maybe(self, callback: str) -> None:
        if callback == self.callback:
            if self.once:
                self.callback = ""
            raise self.error

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self._maybe("on_ws_connected")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        self._maybe("on_ws_frame")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self._maybe("on_ws_disconnected")

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        transport.send_ping(b"ping")
        self._maybe("send_user_specific_ping")

    def is_user_specific_pong(self, frame: WSFrame) -> bool:
        self._maybe("is_user_specific_pong")
        return frame.msg_type == WSMsgType.PONG

    def pause_writing(self) -> None:
        self._maybe("pause_writing")

    def resume_writing(self) -> None:
        self._maybe("resume_writing")


AUTO_PING: dict[str, Any] = {
    "enable_auto_ping": True,
    "auto_ping_idle_timeout": 0.02,
    "auto_ping_strategy": WSAutoPingStrategy.PING_PERIODICALLY,
}
CALLBACKS = [
    "on_ws_connected",
    "on_ws_frame",
    "send_user_specific_ping",
    "is_user_specific_pong",
    "pause_writing",
    "resume_writing",
    "on_ws_disconnected",
]


async def provoke(callback: str, peer: Peer, listener: Raising) -> None:
    """Let the callback be called."""
    if callback == "on_ws_frame":
        peer.send(TEXT, b"word")
    elif callback == "is_user_specific_pong":
        assert (await peer.receive()).msg_type == PING
        peer.send(PONG)
    elif callback in ("pause_writing", "resume_writing"):
        fill(listener.transport)
        listener.transport.send(WSMsgType.TEXT, b"more")
    elif callback == "on_ws_disconnected":
        await peer.close()


@over_both_loops
@over_errors
@over_roles
@pytest.mark.parametrize("callback", CALLBACKS)
def test_it_ends_the_connection_like_any_other(
    net: Network, role: str, callback: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    raised = error("raised")
    options = AUTO_PING if "user_specific" in callback else {}

    async def test() -> None:
        async with ROLES[role](net, lambda: Raising(callback, raised), **options) as (peer, listener):
            await provoke(callback, peer, listener)
            if callback != "on_ws_disconnected":
                assert (await peer.receive_all())[-1] == Received(CLOSE, close_payload(1011))
                await peer.close()
            await listener.disconnected.wait()
            if role == "server":
                await listener.transport.wait_disconnected()
                assert any(record.exc_info and record.exc_info[1] is raised for record in caplog.records)
            else:
                with pytest.raises(RuntimeError, match=f"raised {error.__name__}") as caught:
                    await listener.transport.wait_disconnected()
                assert caught.value.__cause__ is raised
                assert "_maybe" in "".join(traceback.format_tb(raised.__traceback__))

    net.run(test())


@over_both_loops
@over_errors
def test_in_the_factory_of_a_server(net: Network, error: type[BaseException]) -> None:
    def factory(request: object) -> None:
        raise error

    async def test() -> None:
        async with net.serve(factory) as url:
            with pytest.raises(WSInvalidStatusError) as caught:
                await net.connect(Recorder, url)
            assert caught.value.response.status == 500

    net.run(test())


@over_both_loops
@over_errors
def test_in_the_factory_of_a_client(net: Network, error: type[BaseException]) -> None:
    def factory() -> Recorder:
        raise error

    async def test() -> None:
        async with net.serve(lambda request: Recorder()) as url:
            with pytest.raises(RuntimeError, match=f"the listener factory raised {error.__name__}") as caught:
                await net.connect(factory, url)
            assert isinstance(caught.value.__cause__, error)

    net.run(test())


def test_a_cancelled_future_in_a_callback_may_be_logged_only(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with raw_client(
            net, lambda: Raising("on_ws_frame", asyncio.CancelledError()), disconnect_on_exception=False
        ) as (peer, _):
            peer.write(peer.encode(TEXT, b"first") + peer.encode(TEXT, b"second"))
            assert [(await peer.receive()).payload for _ in range(2)] == [b"first", b"second"]
            assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]

    net.run(test())


# -- what ends the program --


def run_on(net: Network, test: Awaitable[None]) -> int:
    """Run to the end of the test, also when the loop is stopped by an exit meanwhile; how often it was."""
    loop = importlib.import_module(net.loop).new_event_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    exits = 0
    try:
        task = loop.create_task(asyncio.wait_for(test, 20))
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (KeyboardInterrupt, SystemExit):
                exits += 1
        task.result()
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert not problems
    return exits


over_exits = pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])


@over_exits
@pytest.mark.parametrize("size", [10, 1000, 30_000])
def test_an_exit_leaves_the_connection_as_it_is(net: Network, error: type[BaseException], size: int) -> None:
    """The loop stops. Run on, it delivers what had come, also when nothing more comes; none of it is lost or damaged."""
    count = 600_000 // size if size > 10 else 100
    words = [b"%06d" % i + bytes([i % 251]) * size for i in range(count)]

    async def test() -> None:
        async with raw_client(net, lambda: Raising("on_ws_frame", error(), once=False)) as (peer, listener):
            # All of it in as few reads as there may be.
            listener.transport.underlying_transport.pause_reading()
            peer.write(b"".join(peer.encode(TEXT, word) for word in words))
            await asyncio.sleep(0.05)
            listener.transport.underlying_transport.resume_reading()
            for word in words:
                assert await listener.payload() == word

    assert run_on(net, test()) == count


@over_every_network
def test_the_end_of_the_stream_does_not_overtake_what_waits_behind_an_exit(net: Network) -> None:
    words = [b"%03d" % i for i in range(100)]

    class Exiting(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            raise SystemExit

    async def test() -> None:
        async with raw_client(net, Exiting) as (peer, listener):
            listener.transport.underlying_transport.pause_reading()
            peer.write(b"".join(peer.encode(TEXT, word) for word in words))
            peer.writer.close()
            listener.transport.underlying_transport.resume_reading()
            for word in words:
                assert await listener.payload() == word
            await listener.disconnected.wait()

    assert run_on(net, test())


@pytest.mark.parametrize("loop", LOOPS)
@over_exits
@pytest.mark.parametrize("callback", ["on_ws_connected", "on_ws_frame", "on_ws_disconnected"])
@over_roles
def test_nobody_waits_for_ever_after_an_exit(loop: str, error: type[BaseException], callback: str, role: str) -> None:
    net = Network(loop)

    async def test() -> None:
        connecting = raw_client if role == "server" else raw_server
        async with connecting(net, lambda: Raising(callback, error())) as (peer, listener):
            peer.send(TEXT, b"word")
            await listener.take(1)
            await peer.close()
            await listener.transport.wait_disconnected()

    assert run_on(net, test()) <= 1


@over_both_loops
@over_exits
def test_an_exit_from_a_coroutine_that_decides(net: Network, error: type[BaseException]) -> None:
    """The loop stops. Run on, it has ended the connection without an answer."""

    async def factory(request: object) -> None:
        await asyncio.sleep(0)
        raise error

    async def test() -> None:
        async with net.serve(factory, websocket_handshake_timeout=None) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            assert await peer.reader.read() == b""

    assert run_on(net, test()) == 1


@over_exits
@over_roles
def test_an_exit_from_a_factory(net: Network, error: type[BaseException], role: str) -> None:
    calls = 0

    def factory(*_: object) -> Recorder:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        return Recorder()

    async def test() -> None:
        factories = [factory, Recorder] if role == "client" else [Recorder, factory]
        async with net.serve(lambda request: factories[1]()) as url:
            # The connection is closed; nobody learns more.
            with pytest.raises((RuntimeError, ConnectionError, Exception)):
                await net.connect(factories[0], url)
            await cut(await net.connect(factories[0], url))

    assert run_on(net, test()) == 1


# -- the traceback that is kept --


class Boom(Exception):
    pass


@over_every_network
def test_a_coroutine_in_the_traceback_goes_on(net: Network) -> None:
    """It put its error into a future and is suspended elsewhere when a callback raises that error."""

    class Waiting(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            future.result()

    async def failing() -> str:
        local = "kept"
        try:
            raise Boom("told")
        except Boom as error:
            future.set_exception(error)
        await resumed.wait()
        return local

    async def test() -> None:
        nonlocal future, resumed
        future, resumed = asyncio.get_running_loop().create_future(), asyncio.Event()
        going_on = asyncio.ensure_future(failing())
        async with raw_server(net, Waiting) as (peer, listener):
            await asyncio.sleep(0)
            peer.send(TEXT, b"word")
            await peer.receive_all()
            await peer.close()
            for _ in range(2):
                with pytest.raises(Boom) as caught:
                    await listener.transport.wait_disconnected()
                names = [place.name for place in traceback.extract_tb(caught.value.__traceback__)]
                assert "on_ws_frame" in names
                assert "failing" in names
                lines = [place.line for place in traceback.extract_tb(caught.value.__traceback__)]
                assert 'raise Boom("told")' in lines
            resumed.set()
            assert await going_on == "kept"

    future: asyncio.Future[None]
    resumed: asyncio.Event
    net.run(test())


def test_causes_keep_their_places_too(net: Network) -> None:
    class Causing(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            try:
                int("x")
            except ValueError as error:
                raise WSProtocolError(4000, "no number") from error

    async def test() -> None:
        async with raw_server(net, Causing) as (peer, listener):
            peer.send(TEXT, b"word")
            await peer.receive_all()
            await peer.close()
            with pytest.raises(WSProtocolError) as caught:
                await listener.transport.wait_disconnected()
            text = "".join(traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__))
            assert 'int("x")' in text
            assert 'raise WSProtocolError(4000, "no number") from error' in text

    net.run(test())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions are new in Python 3.11")
def test_what_a_group_of_errors_has_seen_is_let_go(net: Network) -> None:
    """The places are kept, the variables there are not: the error outlives them."""

    class Thing:
        pass

    class Grouping(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            thing = Thing()
            seen.append(weakref.ref(thing))
            errors = []
            for what in ("x", "y"):
                try:
                    int(what)
                except ValueError as error:
                    errors.append(error)
            raise ExceptionGroup("several", errors[:1]) from errors[1]  # noqa: F821

    async def test() -> None:
        async with raw_server(net, Grouping) as (peer, listener):
            peer.send(TEXT, b"word")
            await peer.receive_all()
            await peer.close()
            with pytest.raises(ExceptionGroup, match="several") as caught:  # noqa: F821
                await listener.transport.wait_disconnected()
            (error,) = caught.value.exceptions
            assert [place.name for place in traceback.extract_tb(error.__traceback__)] == ["on_ws_frame"]
            gc.collect()
            assert seen[0]() is None

    seen: list[weakref.ref[Thing]] = []
    net.run(test())
