"""Topics with a broker, at the moments that a real one shows too seldom; tests/brokers has the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picows import WSBrokerError, WSMsgType, WSTopics
from picows._topic import position_order
from tests.connection.networks import Network, subscribers, transports
from tests.topics.memory import Hub, MemoryBroker

TEXT = WSMsgType.TEXT


@contextlib.asynccontextmanager
async def process(net: Network, connections: int, **options: Any) -> AsyncIterator[Any]:
    """Topics, their broker, and connections."""
    broker = MemoryBroker(**options)
    async with subscribers(net, connections) as (clients, servers), WSTopics(broker) as topics:
        yield topics, broker, clients, servers


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def begin(*calls: Any) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(call) for call in calls]


async def payloads(client: Any, count: int) -> list[bytes]:
    return [await client.payload() for _ in range(count)]


# Asking


def test_those_that_wait_share_one_question(net: Network) -> None:
    """One of them gives up: that is no matter of the others."""

    async def test() -> None:
        async with process(net, 3) as (topics, broker, clients, servers):
            broker.agrees.clear()
            asking = begin(*(topics.subscribe(transport, "a") for transport in transports(servers)))
            await turns()
            asking[0].cancel()
            await turns()
            broker.agrees.set()
            assert await asyncio.gather(*asking[1:]) == ["0", "0"]
            assert broker.calls == ["subscribe a", "agreed"]
            assert await topics.publish("a", TEXT, "hello") == 2
            assert await clients[2].payload() == b"hello"

    net.run(test())


def test_the_broker_is_asked_in_turns(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            transport = servers[0].transport
            await topics.subscribe(transport, "a")
            broker.agrees.clear()
            topics.unsubscribe(transport, "a")
            await turns()
            (again,) = begin(topics.subscribe(transport, "a"))
            await turns()
            assert not again.done()
            broker.agrees.set()
            await again
            assert broker.calls == ["subscribe a", "agreed", "unsubscribe a", "agreed", "subscribe a", "agreed"]
            assert await topics.publish("a", TEXT, "hello") == 1
            topics.unsubscribe(transport, "a")
            await turns()
            assert broker.calls[6:] == ["unsubscribe a", "agreed"]
            assert repr(topics) == "<WSTopics of 0 transports, 0 topics>"

    net.run(test())


def test_a_broker_that_refuses(net: Network) -> None:
    async def test() -> None:
        async with process(net, 2) as (topics, broker, _, servers):
            broker.refuses = True
            asking = begin(*(topics.subscribe(transport, "a") for transport in transports(servers)))
            for call in asking:
                with pytest.raises(WSBrokerError, match="refused"):
                    await call
            await turns()
            assert repr(topics) == "<WSTopics of 0 transports, 0 topics>"
            broker.refuses = False
            await topics.subscribe(servers[0].transport, "a")
            assert await topics.publish("a", TEXT, "") == 1

    net.run(test())


def test_who_ends_while_the_broker_is_asked(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            broker.agrees.clear()
            (asking,) = begin(topics.subscribe(servers[0].transport, "a"))
            await turns()
            clients[0].transport.disconnect(graceful=False)
            await servers[0].disconnected.wait()
            broker.agrees.set()
            await asking
            await turns()
            assert repr(topics) == "<WSTopics of 0 transports, 0 topics>"
            assert broker.calls[-2:] == ["unsubscribe a", "agreed"]

    net.run(test())


# What came back


def test_what_comes_twice_is_delivered_once(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            await topics.publish("a", TEXT, "one")
            await topics.publish("a", TEXT, "two")
            for position, topic, data in broker.hub.stored:
                broker.receive(topic, data, str(position))
            await topics.publish("a", TEXT, "three")
            assert await payloads(clients[0], 3) == [b"one", b"two", b"three"]

    net.run(test())


def test_what_no_picows_has_published_is_dropped(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it comes live, is what somebody has missed, or is the last of that."""

    async def test() -> None:
        async with process(net, 2) as (topics, broker, clients, servers):
            old, new = transports(servers)
            await topics.subscribe(old, "a")
            broker.hub.add("a", b"hello")
            await topics.publish("a", TEXT, "one")
            broker.flows.clear()
            broker.hub.add("a", b"hello again")
            (coming,) = begin(topics.subscribe(new, "a", since="0"))
            assert await clients[1].payload() == b"one"
            await turns(10)
            assert not coming.done()
            broker.flow()
            await asyncio.wait_for(coming, 5)
            await topics.publish("a", TEXT, "two")
            assert await payloads(clients[0], 2) == [b"one", b"two"]
            assert await payloads(clients[1], 1) == [b"two"]

    net.run(test())
    assert "topic 'a' was dropped: 5 bytes" in caplog.text
    assert "topic 'a' was dropped: 11 bytes" in caplog.text


def test_a_number_of_another_process_is_not_ours(net: Network) -> None:
    async def test() -> None:
        hub = Hub()
        async with process(net, 1, hub=hub) as (topics, broker, clients, servers), WSTopics(MemoryBroker(hub)) as others:
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            (ours,) = begin(topics.publish("a", TEXT, "ours"))
            await turns()
            await others.publish("a", TEXT, "theirs")
            (ours_live, theirs_live), broker._live = broker._live, []
            broker.receive(*theirs_live[:2], None)
            await turns()
            assert not ours.done()
            broker.receive(*ours_live)
            assert await ours == 1
            assert await payloads(clients[0], 2) == [b"theirs", b"ours"]

    net.run(test())


def test_a_message_that_does_not_come_back(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picows.topics.ECHO_TIMEOUT", 0.05)

    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            with pytest.raises(WSBrokerError, match=r"did not send it back within 0\.05 seconds"):
                await topics.publish("a", TEXT, "one")
            broker.flow()
            assert await clients[0].payload() == b"one"

    net.run(test())


def test_the_last_one_leaves_while_a_publish_waits(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            (publishing,) = begin(topics.publish("a", TEXT, "one"))
            await turns()
            topics.unsubscribe(servers[0].transport, "a")
            assert await asyncio.wait_for(publishing, 5) == 0

    net.run(test())


@pytest.mark.parametrize("early", [False, True])
def test_an_outage_between_the_confirmation_and_the_message(net: Network, early: bool) -> None:
    """Without a store it may never come back: told at once, also when the outage came first."""

    async def test() -> None:
        async with process(net, 1, stores=False) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            await topics.publish("a", TEXT, "zero")
            broker.flows.clear()
            if early:
                broker.on_publish = broker.cut
            publishing = begin(topics.publish("a", TEXT, "one"), topics.publish("a", TEXT, "two"))
            await turns()
            if not early:
                broker.cut()
            for call in publishing:
                with pytest.raises(WSBrokerError, match=r"may have arrived or not|nothing was published"):
                    await asyncio.wait_for(call, 5)
            broker.on_publish = int
            broker.mend()
            broker.flow()
            assert await topics.publish("a", TEXT, "three") == 1
            assert await clients[0].payload() == b"zero"

    net.run(test())


def test_an_outage_right_behind_the_message(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1, stores=False) as (topics, broker, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            (publishing,) = begin(topics.publish("a", TEXT, "one"))
            await turns()
            broker.flow()
            broker.cut()
            assert await publishing == 1

    net.run(test())


def test_what_waits_for_the_broker_is_not_lost_with_it(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1, stores=False) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.cut()
            (publishing,) = begin(topics.publish("a", TEXT, "one", timeout=None))
            await turns()
            broker.mend()
            assert await publishing == 1
            assert await clients[0].payload() == b"one"

    net.run(test())


# What was missed


def test_an_outage_while_the_missed_is_fetched(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the process, nor a client that comes back, gets anything twice."""

    async def test() -> None:
        async with process(net, 2) as (topics, broker, clients, servers):
            old, new = transports(servers)
            await topics.subscribe(old, "a")
            await topics.publish("a", TEXT, "0")
            broker.cut()
            async with WSTopics(MemoryBroker(broker.hub)) as others:
                for number in range(1, 5):
                    await others.publish("a", TEXT, str(number))
                broker.serves.clear()
                broker.mend()
                (coming,) = begin(topics.subscribe(new, "a", since="0"))
                await turns()
                broker.cut()  # once more
                await others.publish("a", TEXT, "5")
                broker.mend()
                await others.publish("a", TEXT, "6")
                broker.refuses = True
                broker.serves.set()
                await turns()
                broker.refuses = False
                await coming
                await others.publish("a", TEXT, "7")
                for client in clients:
                    assert await payloads(client, 8) == [b"%d" % number for number in range(8)]

    net.run(test())


def test_the_broker_goes_away_in_the_midst_of_the_missed(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            for number in range(4):
                await topics.publish("a", TEXT, str(number))
            broker.gives = 2
            await topics.subscribe(servers[0].transport, "a", since="0")
            await topics.publish("a", TEXT, "4")
            assert await payloads(clients[0], 5) == [b"0", b"1", b"2", b"3", b"4"]
            assert broker.calls[-2:] == ["missed since 0", "missed since 2"]

    net.run(test())


def test_a_store_that_is_lost(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Its positions begin anew: what comes now is not taken for what has come before."""

    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            for number in range(5):
                await topics.publish("a", TEXT, str(number))
            broker.cut()
            broker.hub.forget()
            broker.mend()
            assert await asyncio.wait_for(topics.publish("a", TEXT, "5"), 5) == 1
            assert await topics.publish("a", TEXT, "6") == 1
            assert await payloads(clients[0], 7) == [b"%d" % number for number in range(7)]

    net.run(test())
    assert "messages were lost in an outage" in caplog.text


def test_the_same_transport_comes_twice_at_once(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            transport = servers[0].transport
            for number in range(3):
                await topics.publish("a", TEXT, str(number))
            broker.serves.clear()
            (first,) = begin(topics.subscribe(transport, "a", since="0"))
            await turns(10)
            for since in ("1", None):
                with pytest.raises(RuntimeError, match="is subscribing to 'a' already"):
                    await topics.subscribe(transport, "a", since=since)
            broker.serves.set()
            await first
            await topics.subscribe(transport, "a", since="0")  # it has it all
            topics.unsubscribe(transport, "a")
            await topics.subscribe(transport, "a", since="2")
            await topics.publish("a", TEXT, "3")
            assert await payloads(clients[0], 5) == [b"0", b"1", b"2", b"2", b"3"]

    net.run(test())


def test_who_ends_while_it_catches_up(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            for number in range(3):
                await topics.publish("a", TEXT, str(number))
            broker.serves.clear()
            (coming,) = begin(topics.subscribe(servers[0].transport, "a", since="0"))
            await turns(10)
            clients[0].transport.disconnect(graceful=False)
            await servers[0].disconnected.wait()
            broker.serves.set()
            await coming
            await turns()
            assert repr(topics) == "<WSTopics of 0 transports, 0 topics>"
            assert broker.calls[-2:] == ["unsubscribe a", "agreed"]

    net.run(test())


def test_what_is_live_may_be_behind_what_is_stored(net: Network) -> None:
    async def test() -> None:
        async with process(net, 2) as (topics, broker, clients, servers):
            old, new = transports(servers)
            await topics.subscribe(old, "a")
            broker.flows.clear()
            publishing = begin(*(topics.publish("a", TEXT, str(number)) for number in range(3)))
            (coming,) = begin(topics.subscribe(new, "a", since="0"))
            assert await payloads(clients[1], 3) == [b"0", b"1", b"2"]
            await turns()
            assert not coming.done()
            broker.flow()
            await coming
            assert await asyncio.gather(*publishing) == [1, 1, 1]
            await topics.publish("a", TEXT, "3")
            assert await payloads(clients[1], 1) == [b"3"]
            assert await payloads(clients[0], 4) == [b"0", b"1", b"2", b"3"]

    net.run(test())


def test_who_gives_up_while_it_waits_for_what_is_live(net: Network) -> None:
    async def test() -> None:
        async with process(net, 2) as (topics, broker, clients, servers):
            old, new = transports(servers)
            await topics.subscribe(old, "a")
            broker.flows.clear()
            publishing = begin(topics.publish("a", TEXT, "0"))
            coming = begin(topics.subscribe(new, "a", since="0"))
            assert await clients[1].payload() == b"0"
            await turns()
            coming[0].cancel()
            broker.flow()
            assert await asyncio.gather(*publishing) == [1]
            assert topics.topics(new) == frozenset()
            await topics.publish("a", TEXT, "1")
            assert await payloads(clients[0], 2) == [b"0", b"1"]
            assert clients[1].rest() == []

    net.run(test())


def test_what_was_missed_waits_for_a_slow_peer(net: Network) -> None:
    """Its memory is bounded, however much that is."""
    size, count, most = 64 * 1024, 200, 512 * 1024

    async def test() -> None:
        async with process(net, 1) as (topics, _, clients, servers):
            for _ in range(count):
                await topics.publish("a", WSMsgType.BINARY, bytes(size))
            transport, waited = servers[0].transport, 0
            clients[0].transport.underlying_transport.pause_reading()
            (coming,) = begin(topics.subscribe(transport, "a", since="0"))
            while not transport.write_buffer_size:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
                waited = max(waited, transport.write_buffer_size)
            clients[0].transport.underlying_transport.resume_reading()
            while not coming.done():
                await asyncio.sleep(0)
                waited = max(waited, transport.write_buffer_size)
            await coming
            assert 0 < waited < most
            assert [len(payload) for payload in await payloads(clients[0], count)] == [size] * count

    net.run(test())


@pytest.mark.parametrize("wrong", ["", "x", "1-", "-1", "1_0", "+1", " 1", "1.0", "\u0663", "1" * 21])
def test_what_is_no_position(net: Network, wrong: str) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, _, _, servers):
            with pytest.raises(ValueError, match="a position is made of decimal numbers"):
                await topics.subscribe(servers[0].transport, "a", since=wrong)

    net.run(test())


def test_positions_are_compared_by_their_numbers() -> None:
    positions = ["0-0", "9-1", "9-2", "9-10", "10-0", "100-0"]
    backwards = positions[::-1]
    assert sorted(backwards, key=position_order) == positions
    assert position_order("9") < position_order("10")


# The end


@pytest.mark.parametrize("stores", [False, True])
def test_closing_ends_all_that_waits(net: Network, stores: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        broker = MemoryBroker(stores=stores)
        async with subscribers(net, 3) as (_, servers):
            old, new, late = transports(servers)
            topics = WSTopics(broker)
            await topics.__aenter__()
            await topics.subscribe(old, "a")
            broker.flows.clear()
            (publishing,) = begin(topics.publish("a", TEXT, "one"))
            await turns()
            replaying = begin(topics.subscribe(new, "a", since="0")) if stores else []
            broker.agrees.clear()
            (asking,) = begin(topics.subscribe(late, "b"))
            await turns(10)
            await topics.__aexit__()
            with pytest.raises(WSBrokerError, match="was closed before the message came back"):
                await asyncio.wait_for(publishing, 5)
            with pytest.raises(WSBrokerError, match="was closed before it has agreed"):
                await asking
            for call in replaying:
                await asyncio.wait_for(call, 5)
            assert broker.calls[-1] == "close"
            with pytest.raises(RuntimeError, match="async with"):
                await topics.subscribe(old, "b")

    net.run(test())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
