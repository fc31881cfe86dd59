"""Topics of several processes over real brokers. Here the processes are WSTopics with a connection each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from picows import WSBrokerError, WSMsgType, WSTopics
from picows.errors import WSPositionError
from tests.brokers.servers import PASSWORD, PLAIN, STORES, USER, Relay, Server, server_of
from tests.connection.networks import LOOPS, Network, subscribers, transports

over_every_broker = pytest.mark.parametrize("kind", [*PLAIN, *STORES])
over_every_store = pytest.mark.parametrize("kind", STORES)


@pytest.fixture(params=LOOPS)
def net(request: pytest.FixtureRequest) -> Network:
    return Network(request.param)


@contextlib.asynccontextmanager
async def processes(net: Network, kind: str, folder: Path, connections: int, **options: Any) -> AsyncIterator[Any]:
    """A server and two that are connected to it; and connections to nobody in particular."""
    async with server_of(kind, folder) as server, subscribers(net, connections) as (clients, servers):
        here, there = WSTopics(server.broker(), **options), WSTopics(server.broker())
        async with here, there:
            yield server, here, there, clients, servers


@contextlib.asynccontextmanager
async def cut_off_process(net: Network, kind: str, folder: Path, connections: int) -> AsyncIterator[Any]:
    """As `processes`, but the second one stands behind a relay."""
    async with server_of(kind, folder) as server, subscribers(net, connections) as (clients, servers):
        relay, here = Relay(server.port), WSTopics(server.broker())
        there = WSTopics(server.broker(relay.port))
        async with relay, here, there:
            yield relay, here, there, clients, servers


def with_position(topic: str, position: str, message: bytes) -> bytes:
    return position.encode() + b" " + message


async def numbers(client: Any, count: int) -> list[int]:
    return [int(await client.payload()) for _ in range(count)]


async def publish_all(topics: Any, topic: str, payloads: Any, **options: Any) -> list[int]:
    return await asyncio.gather(*(topics.publish(topic, WSMsgType.TEXT, str(each), **options) for each in payloads))


async def publish_for_ever(topics: Any) -> None:
    while True:
        await topics.publish("a", WSMsgType.TEXT, "lost?")


async def back(server: Server, *all_topics: Any) -> None:
    """Start the server again, and wait until everyone can publish."""
    await server.start()
    for topics in all_topics:
        await topics.publish("nobody", WSMsgType.TEXT, "", timeout=None)


@over_every_broker
def test_a_message_reaches_every_process_once(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with processes(net, kind, tmp_path, 5) as (_server, here, there, clients, servers):
            for transport in transports(servers[:3]):
                await here.subscribe(transport, "a.b")
                await here.subscribe(transport, "a.b")
            await there.subscribe(servers[3].transport, "a.b")
            await there.subscribe(servers[4].transport, "a.c")
            assert await here.publish("a.b", WSMsgType.TEXT, "one") == 3
            assert await there.publish("a.b", WSMsgType.BINARY, memoryview(b"two"), compress=False) == 1
            assert await here.publish("a.c", WSMsgType.TEXT, None) == 0
            for client in clients[:4]:
                first, second = await client.take(2)
                assert (first.msg_type, first.payload) == (WSMsgType.TEXT, b"one")
                assert (second.msg_type, second.payload) == (WSMsgType.BINARY, b"two")
            assert await clients[4].payload() == b""
            assert [here.subscribers("a.b"), there.subscribers("a.b")] == [3, 1]
            assert not any(client.rest() for client in clients)

    net.run(test())


@over_every_broker
def test_the_order_of_a_topic_is_the_same_for_all(net: Network, kind: str, tmp_path: Path) -> None:
    """But for NATS without a stream: there it is that of each publisher."""

    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (_server, here, there, clients, servers):
            await here.subscribe(servers[0].transport, "a")
            await there.subscribe(servers[1].transport, "a")
            counts = await asyncio.gather(
                publish_all(here, "a", range(0, 600, 2)), publish_all(there, "a", range(1, 600, 2))
            )
            assert counts == [[1] * 300, [1] * 300]
            first, second = [await numbers(client, 600) for client in clients]
            if kind != "nats":
                assert first == second
            for heard in (first, second):
                for parity in (0, 1):
                    assert [number for number in heard if number % 2 == parity] == list(range(parity, 600, 2))

    net.run(test())


@over_every_broker
def test_who_left_is_not_sent_to_and_may_come_back(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (_server, topics, _, clients, servers):
            transport = servers[0].transport
            for number in range(5):
                await topics.subscribe(transport, "a")
                assert await topics.publish("a", WSMsgType.TEXT, str(number)) == 1
                topics.unsubscribe(transport, "a")
                assert await topics.publish("a", WSMsgType.TEXT, "unheard") == 0
            assert await numbers(clients[0], 5) == list(range(5))
            await topics.subscribe(servers[1].transport, "a")
            clients[1].transport.disconnect(graceful=False)
            await servers[1].disconnected.wait()
            assert topics.subscribers("a") == 0
            assert await topics.publish("a", WSMsgType.TEXT, "unheard") == 0
            assert clients[0].rest() == []

    net.run(test())


@over_every_broker
def test_an_outage(net: Network, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Publishes raise or wait; afterwards all subscriptions are there again; the log has a line, but no password."""
    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (server, here, there, clients, servers):
            await here.subscribe(servers[0].transport, "a")
            await there.subscribe(servers[1].transport, "b")
            await server.kill()
            with pytest.raises(WSBrokerError):
                await publish_for_ever(here)
            with pytest.raises(WSBrokerError, match="nothing was published"):
                await here.publish("a", WSMsgType.TEXT, "no")
            with pytest.raises(WSBrokerError, match=r"away for 0\.05 seconds, nothing was published"):
                await here.publish("a", WSMsgType.TEXT, "no", timeout=0.05)
            waiting = asyncio.ensure_future(publish_all(there, "b", range(10), timeout=None))
            late = asyncio.ensure_future(here.subscribe(servers[0].transport, "c"))
            await back(server, here, there)
            assert await waiting == [1] * 10
            await late
            assert await there.publish("a", WSMsgType.TEXT, "again") == 0
            assert await there.publish("c", WSMsgType.TEXT, "late") == 0
            while (payload := await clients[0].payload()) != b"late":
                assert payload in (b"lost?", b"again")
            assert await numbers(clients[1], 10) == list(range(10))

    net.run(test())
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("was lost" in line for line in lines) == sum("is back" in line for line in lines) == 2
    assert PASSWORD not in caplog.text
    assert USER not in caplog.text


@over_every_broker
def test_a_broker_that_cannot_be_reached(net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        broker = server_of(kind, tmp_path).broker()
        monkeypatch.setattr("picows.brokers.nats.CONNECT_TIMEOUT", 0.2, raising=False)
        topics = WSTopics(broker)
        with pytest.raises(WSBrokerError) as caught:
            await topics.__aenter__()
        assert PASSWORD not in str(caught.value)
        assert PASSWORD not in repr(broker)
        with pytest.raises(RuntimeError, match="async with"):
            await topics.publish("a", WSMsgType.TEXT, "")

    net.run(test())


@over_every_broker
def test_wrong_arguments(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with processes(net, kind, tmp_path, 1) as (_server, topics, _, _clients, servers):
            transport = servers[0].transport
            wrong: list[tuple[Any, type[Exception], str]] = [
                (topics.publish("a b", WSMsgType.TEXT, ""), ValueError, "no visible ASCII"),
                (topics.publish("a", WSMsgType.PING, ""), ValueError, "expected TEXT or BINARY"),
                (topics.publish("a", WSMsgType.TEXT, 5), TypeError, "message is of type int"),  # type: ignore[arg-type]
                (topics.publish("a", WSMsgType.TEXT, "", latest=1), TypeError, "latest"),  # type: ignore[arg-type]
                (topics.publish("a", WSMsgType.TEXT, "", timeout=-1), ValueError, "timeout"),
                (topics.publish("a", WSMsgType.TEXT, "", compress=1), TypeError, "compress"),  # type: ignore[arg-type]
                (topics.subscribe(transport, "*"), ValueError, "wildcard"),
                (topics.subscribe(None, "a"), TypeError, "transport"),  # type: ignore[arg-type]
                (topics.subscribe(transport, "a", since="x"), ValueError, "position"),
                (topics.subscribe(transport, "a", since=5), TypeError, "position"),  # type: ignore[arg-type]
            ]
            if kind in PLAIN:
                wrong.append((topics.subscribe(transport, "a", since="5"), ValueError, "does not store"))
            for call, error, sentence in wrong:
                with pytest.raises(error, match=sentence):
                    await call

    net.run(test())


@over_every_store
def test_what_was_missed_and_what_goes_on(net: Network, kind: str, tmp_path: Path) -> None:
    """Clients that come in the middle of a stream of publishes: nothing is missing, twice or out of order."""
    count = 3000

    async def test() -> None:
        async with processes(net, kind, tmp_path, 6, stamp=with_position) as (_server, here, there, clients, servers):
            begin = await here.subscribe(servers[0].transport, "a")
            assert begin is not None
            published = asyncio.ensure_future(stream(there))
            positions: list[str] = []
            for number, transport in enumerate(transports(servers[1:])):
                while len(positions) < 100 * (number + 1):
                    positions.append((await clients[0].payload()).split()[0].decode())
                await here.subscribe(transport, "a", since=positions[100 * number + 50])
            await published
            while len(positions) < count:
                positions.append((await clients[0].payload()).split()[0].decode())
            for number, client in enumerate(clients[1:]):
                got = [(await client.payload()).split() for _ in range(count - 100 * number - 51)]
                assert [int(value) for _, value in got] == list(range(100 * number + 51, count))
                assert [position.decode() for position, _ in got] == positions[100 * number + 51 :]
            await here.publish("a", WSMsgType.TEXT, "end")
            for client in clients:
                assert (await client.payload()).endswith(b"end")

    async def stream(topics: Any) -> None:
        for number in range(0, count, 20):
            await publish_all(topics, "a", range(number, number + 20))

    net.run(test())


@over_every_store
def test_from_the_beginning_and_from_the_end(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with server_of(kind, tmp_path) as server, subscribers(net, 3) as (clients, servers):
            first, second, third = transports(servers)
            async with WSTopics(server.broker()) as topics:
                begin = await topics.subscribe(first, "a")
                await topics.publish("b", WSMsgType.TEXT, "another topic")
                await publish_all(topics, "a", range(3))
                end = await topics.subscribe(second, "a", since=begin)
                assert await topics.subscribe(third, "a", since=end) == end
                await publish_all(topics, "a", [3])
                assert await numbers(clients[0], 4) == await numbers(clients[1], 4) == [0, 1, 2, 3]
                assert await numbers(clients[2], 1) == [3]

    net.run(test())


@over_every_store
def test_a_position_that_is_not_stored(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (_, topics, _, clients, servers):
            broker = topics._broker
            begin = await topics.subscribe(servers[0].transport, "a")
            assert begin is not None
            await publish_all(topics, "a", range(10))
            if kind == "jetstream":
                await broker._js.purge_stream("topics", keep=5)
            else:
                await broker._client.xtrim("picows:a", maxlen=5, approximate=False)
            with pytest.raises(WSPositionError, match="oldest position") as caught:
                await topics.subscribe(servers[1].transport, "a", since=begin)
            assert (caught.value.topic, caught.value.position) == ("a", begin)
            with pytest.raises(WSPositionError, match="last position"):
                await topics.subscribe(servers[1].transport, "a", since="9999999999999")
            assert topics.topics(servers[1].transport) == frozenset()
            await publish_all(topics, "a", [10])
            assert await numbers(clients[0], 11) == list(range(11))
            assert clients[1].rest() == []

    net.run(test())


@over_every_store
def test_an_outage_under_load_loses_and_doubles_nothing(net: Network, kind: str, tmp_path: Path) -> None:
    """What was confirmed arrives once; what was not confirmed at most once."""
    confirmed: list[int] = []
    tried: list[int] = []
    stop = asyncio.Event()

    async def publish(topics: Any, first: int) -> None:
        number = first
        while not stop.is_set():
            tried.append(number)
            with contextlib.suppress(WSBrokerError):
                await topics.publish("a", WSMsgType.TEXT, str(number), timeout=None)
                confirmed.append(number)
            number += 10

    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (server, here, there, clients, servers):
            await here.subscribe(servers[0].transport, "a")
            await there.subscribe(servers[1].transport, "a")
            publishers = [asyncio.ensure_future(publish((here, there)[i % 2], i)) for i in range(10)]
            for _ in range(2):
                before = len(confirmed)
                while len(confirmed) < before + 200:
                    await asyncio.sleep(0.01)
                await server.kill()
                await back(server, here, there)
            stop.set()
            await asyncio.gather(*publishers)
            await here.publish("a", WSMsgType.TEXT, "-1")
            for client in clients:
                received: list[int] = []
                while not received or received[-1] != -1:
                    received += await numbers(client, 1)
                received.pop()
                assert len(received) == len(set(received)), "doubled"
                assert set(confirmed) <= set(received) <= set(tried), "missed"

    net.run(test())


@over_every_store
def test_a_process_that_was_cut_off_catches_up(net: Network, kind: str, tmp_path: Path) -> None:
    """What others published meanwhile comes before what is live again, each message once."""

    async def test() -> None:
        async with cut_off_process(net, kind, tmp_path, 2) as (relay, here, cut_off, clients, servers):
            await here.subscribe(servers[0].transport, "a")
            await cut_off.subscribe(servers[1].transport, "a")
            await publish_all(here, "a", range(10))
            for number in (10, 20):
                await relay.cut()
                await publish_all(here, "a", range(number, number + 5))
                await relay.mend()
                await publish_all(here, "a", range(number + 5, number + 10))
                assert await publish_all(cut_off, "b", [0], timeout=None) == [0]
            assert await numbers(clients[1], 30) == list(range(30))
            assert await numbers(clients[0], 30) == list(range(30))

    net.run(test())


@pytest.mark.parametrize("kind", PLAIN)
def test_a_process_that_was_cut_off_hears_again(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with cut_off_process(net, kind, tmp_path, 1) as (relay, here, cut_off, clients, servers):
            await cut_off.subscribe(servers[0].transport, "a")
            await relay.cut()
            await publish_all(here, "a", ["missed"])
            await relay.mend()
            await publish_all(cut_off, "b", [0], timeout=None)
            await publish_all(here, "a", ["heard"])
            assert await clients[0].payload() == b"heard"

    net.run(test())


def test_what_is_stored_may_be_ahead_of_what_is_live(net: Network, tmp_path: Path) -> None:
    """Redis: the connection that listens is behind the one that reads the store."""

    async def test() -> None:
        async with cut_off_process(net, "redis-streams", tmp_path, 2) as (relay, here, behind, clients, servers):
            begin = await behind.subscribe(servers[0].transport, "a")
            relay.first_flows.clear()
            await publish_all(here, "a", range(10))
            subscribing = asyncio.ensure_future(behind.subscribe(servers[1].transport, "a", since=begin))
            assert await numbers(clients[1], 10) == list(range(10))
            await publish_all(here, "a", range(10, 15))
            assert not subscribing.done()
            relay.first_flows.set()
            await subscribing
            await publish_all(here, "a", range(15, 20))
            assert await numbers(clients[1], 10) == list(range(10, 20))
            assert await numbers(clients[0], 20) == list(range(20))

    net.run(test())


@over_every_broker
def test_closing_while_somebody_waits(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with processes(net, kind, tmp_path, 2) as (server, _, _there, _, servers):
            here = WSTopics(server.broker())
            await here.__aenter__()
            await here.subscribe(servers[0].transport, "a")
            await server.kill()
            with pytest.raises(WSBrokerError):
                await publish_for_ever(here)
            waiting = [asyncio.ensure_future(here.subscribe(servers[1].transport, "b"))]
            waiting.append(asyncio.ensure_future(here.publish("a", WSMsgType.TEXT, "", timeout=None)))
            await asyncio.sleep(0)
            await here.__aexit__()
            for call in waiting:
                with pytest.raises(WSBrokerError):
                    await call

    net.run(test())
