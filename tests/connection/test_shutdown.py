"""WSServer.shutdown: every client is told, and waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from picows import WSCloseCode, WSMsgType, WSShutdownReport
from tests.connection.networks import Network, Recorder, over_both_loops, over_every_network
from tests.connection.peers import CLOSE, close_code, stream
from tests.connection.servers import all_frames, handshake_begun, serving, turned_away, upgraded

HANG = 10.0  # seconds; longer than anything here waits that is not meant to hang


@over_every_network
def test_every_client_hears_all_and_then_the_code_and_the_reason(net: Network) -> None:
    async def test() -> None:
        # Without a limit of its own only the shutdown ends a handshake.
        unlimited = serving(net, websocket_handshake_timeout=None)
        async with unlimited as served, upgraded(net, served) as raw, stream(net, served.url) as early:
            clients = [await net.connect(Recorder, served.url, enable_auto_close=True) for _ in range(3)]
            await handshake_begun(net, served, early)
            told = [transport for transport in served.server.connections if transport.request is not None]
            for transport in told:
                transport.send(WSMsgType.BINARY, bytes(1 << 20))
            reading = asyncio.ensure_future(raw.receive())
            shutting_down = asyncio.ensure_future(served.server.shutdown(WSCloseCode.SERVICE_RESTART, "back soon"))
            assert (await reading).payload == bytes(1 << 20)
            close = await raw.receive()
            assert close_code(close) == 1012
            assert close.payload[2:] == b"back soon"
            await early.lost()
            assert await turned_away(served.url)
            raw.send(CLOSE, close.payload)
            report = await asyncio.wait_for(shutting_down, HANG)
            for client in clients:
                data, last = await client.take(2)
                assert data.payload == bytes(1 << 20)
                assert (last.msg_type, last.payload[2:]) == (CLOSE, b"back soon")
                await client.transport.wait_disconnected()
            assert report == WSShutdownReport(closed=4, aborted=0)
            assert len(served.server.connections) == 0
            assert all(listener.calls[-1] == "disconnected" for listener in served.listeners)
            await asyncio.wait_for(served.server.wait_closed(), HANG)

    net.run(test())


@over_every_network
def test_who_does_not_answer_is_aborted(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as raw:
            report = await asyncio.wait_for(served.server.shutdown(timeout=0.05), HANG)
            assert report == (0, 1)
            assert report.aborted == 1
            assert close_code((await all_frames(raw))[-1]) == WSCloseCode.GOING_AWAY

    net.run(test())


@over_both_loops
def test_the_closes_are_spread_over_the_time_in_a_random_order(net: Network) -> None:
    count, spread = 40, 0.4

    async def test() -> None:
        loop = asyncio.get_running_loop()
        times: dict[int, float] = {}

        class Client(Recorder):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.number = number

            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                times[self.number] = loop.time()

        async with serving(net) as served:
            for number in range(count):
                await net.connect(lambda number=number: Client(number), served.url, enable_auto_close=True)  # type: ignore[misc]
            begun = loop.time()
            report = await asyncio.wait_for(served.server.shutdown(spread=spread), HANG)
        assert report == (count, 0)
        assert len(times) == count
        in_time = sorted(times.values())
        # A loaded machine may be late, but never early.
        assert all(at - begun >= spread * place / count - 0.01 for place, at in enumerate(in_time))
        assert sorted(times, key=times.__getitem__) != list(range(count))

    net.run(test())


@over_both_loops
def test_closes_that_are_late_do_not_go_out_in_one_lump(net: Network) -> None:
    count = 20

    async def test() -> None:
        async with serving(net) as served:
            for _ in range(count):
                await net.connect(Recorder, served.url, enable_auto_close=True)
            transports = list(served.server.connections)
            shutting_down = asyncio.ensure_future(served.server.shutdown(spread=0.05))
            while not any(transport.is_close_frame_sent for transport in transports):
                await asyncio.sleep(0)
            time.sleep(0.06)  # all of them are late
            told = [1]
            while not shutting_down.done():
                await asyncio.sleep(0)
                told.append(sum(transport.is_close_frame_sent for transport in transports))
        assert told[-1] == count
        assert max(after - before for before, after in zip(told, told[1:])) <= 3

    net.run(test())


@over_both_loops
def test_until_its_close_a_connection_goes_on(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            clients = [await net.connect(Recorder, served.url, enable_auto_close=True) for _ in range(2)]
            shutting_down = asyncio.ensure_future(served.server.shutdown(spread=1000))
            # One of them is told at once.
            done, _ = await asyncio.wait(
                [asyncio.ensure_future(client.take(1)) for client in clients], return_when=asyncio.FIRST_COMPLETED
            )
            assert len(done) == 1
            (left,) = (transport for transport in served.server.connections if not transport.is_close_frame_sent)
            assert left.send(WSMsgType.TEXT, "still here")
            shutting_down.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shutting_down
            for client in clients:
                await client.transport.wait_disconnected()
            assert {client.transport.close_handshake is None for client in clients} == {True, False}

    net.run(test())


@over_both_loops
def test_whoever_cancels_it_aborts_those_who_are_left(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as raw:
            shutting_down = asyncio.ensure_future(served.server.shutdown(timeout=1000))
            assert close_code(await raw.receive()) == WSCloseCode.GOING_AWAY
            shutting_down.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(shutting_down, HANG)
            await raw.lost()
            await asyncio.wait_for(served.server.wait_closed(), HANG)
            assert len(served.server.connections) == 0

    net.run(test())


@over_both_loops
def test_twice_at_once_is_once(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            client = await net.connect(Recorder, served.url, enable_auto_close=True)
            reports = await asyncio.gather(served.server.shutdown(), served.server.shutdown(code=1012))
            assert reports == [(1, 0), (1, 0)]
            await client.transport.wait_disconnected()
            assert client.transport.close_handshake.recv.code == 1001
            assert await served.server.shutdown() == (0, 0)

    net.run(test())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"code": 1005}, ValueError, "close_code is 1005"),
        ({"code": "1001"}, TypeError, "close_code is of type str"),
        ({"reason": "x" * 124}, ValueError, "close_message"),
        ({"code": 0, "reason": "x"}, ValueError, "without a close_code"),
        ({"spread": -1}, ValueError, "spread must be a positive"),
        ({"spread": "1"}, TypeError, "spread must be a number of seconds"),
        ({"timeout": 0}, ValueError, "timeout must be a positive"),
        ({"timeout": None}, TypeError, "timeout must be a number of seconds"),
    ],
)
@over_both_loops
def test_wrong_arguments_end_nothing(
    net: Network, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def test() -> None:
        async with serving(net) as served:
            with pytest.raises(error, match=message):
                await served.server.shutdown(**arguments)
            assert served.server.is_serving()

    net.run(test())


@over_both_loops
def test_another_event_loop_is_refused(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="belongs to another event loop"):
                    asyncio.run(served.server.shutdown())

            await asyncio.get_running_loop().run_in_executor(None, elsewhere)
            assert served.server.is_serving()

    net.run(test())
