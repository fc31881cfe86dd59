"""What a process, or a client of it, has missed: nothing of it is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio

import pytest

from picows import WSMsgType, WSTopics
from tests.connection.networks import Network, Received, transports
from tests.topics.memory import Hub, MemoryBroker, begin, payloads, process, turns

TEXT = WSMsgType.TEXT


@pytest.mark.parametrize("refuses", [False, True])
def test_an_outage_while_the_missed_is_fetched(net: Network, refuses: bool) -> None:
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
                broker.refuses = refuses
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
            assert await clients[0].take(5) == [Received(TEXT, b"%d" % number) for number in range(5)]
            assert broker.calls[-2:] == ["missed since 0", "missed since 2"]

    net.run(test())


def test_a_broker_that_is_back_for_a_moment(net: Network) -> None:
    async def test() -> None:
        hub = Hub()
        async with process(net, 1, hub=hub) as (topics, broker, clients, servers), WSTopics(MemoryBroker(hub)) as others:
            await topics.subscribe(servers[0].transport, "a")
            broker.cut()
            await turns()
            broker.mend()
            broker.cut()
            await turns()
            await others.publish("a", TEXT, "missed")
            broker.mend()
            await others.publish("a", TEXT, "live")
            assert await payloads(clients[0], 2) == [b"missed", b"live"]

    net.run(test())


def test_an_outage_while_the_broker_is_asked(net: Network) -> None:
    """Then there is nothing to go back to; and the position is that of what has come meanwhile."""

    async def test() -> None:
        hub = Hub()
        async with process(net, 1, hub=hub) as (topics, broker, clients, servers), WSTopics(MemoryBroker(hub)) as others:
            broker.agrees.clear()
            (asking,) = begin(topics.subscribe(servers[0].transport, "a"))
            await turns()
            broker.cut()
            broker.mend()
            await others.publish("a", TEXT, "before")
            broker.agrees.set()
            assert await asking == "1"
            await others.publish("a", TEXT, "behind")
            assert await clients[0].payload() == b"behind"

    net.run(test())


def test_a_store_gives_back_what_was_confirmed(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            (publishing,) = begin(topics.publish("a", TEXT, "one"))
            await turns()
            broker.cut()
            broker.mend()
            assert await publishing == 1
            broker.flow()
            await topics.publish("a", TEXT, "two")
            assert await payloads(clients[0], 2) == [b"one", b"two"]

    net.run(test())


def test_a_store_that_is_trimmed_while_it_gives(net: Network) -> None:
    """What was fetched before is not taken from what is live as well."""

    async def test() -> None:
        hub = Hub()
        async with process(net, 1, hub=hub) as (topics, broker, clients, servers), WSTopics(MemoryBroker(hub)) as others:
            await topics.subscribe(servers[0].transport, "a")
            broker.cut()
            await others.publish("a", TEXT, "0")
            broker.trims = True
            broker.mend()
            await others.publish("a", TEXT, "1")  # is stored, and live
            await turns(10)
            await others.publish("a", TEXT, "2")
            assert await payloads(clients[0], 3) == [b"0", b"1", b"2"]

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
            publishing += begin(topics.publish("a", TEXT, "3"))  # comes live only
            await turns()
            broker.flow()
            await coming
            assert await asyncio.gather(*publishing) == [1, 1, 1, 1]
            await topics.publish("a", TEXT, "4")
            assert await payloads(clients[1], 2) == [b"3", b"4"]
            assert await payloads(clients[0], 5) == [b"0", b"1", b"2", b"3", b"4"]

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


def test_a_slow_peer_that_ends_while_it_is_waited_for(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, _, clients, servers):
            for _ in range(200):
                await topics.publish("a", WSMsgType.BINARY, bytes(64 * 1024))
            clients[0].transport.underlying_transport.pause_reading()
            (coming,) = begin(topics.subscribe(servers[0].transport, "a", since="0"))
            while not servers[0].transport.write_buffer_size:
                await asyncio.sleep(0)
            await turns(20)
            servers[0].transport.disconnect(graceful=False)
            await coming
            assert topics.subscribers("a") == 0

    net.run(test())
