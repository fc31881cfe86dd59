"""Topics with a broker, at the moments that a real one shows too seldom; tests/brokers has the real ones."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from picows import WSBrokerError, WSMsgType, WSTopics
from picows._topic import position_order
from tests.connection.networks import Network, subscribers, transports
from tests.connection.threads import call_in_thread
from tests.topics.memory import Hub, MemoryBroker, begin, payloads, process, turns

TEXT = WSMsgType.TEXT


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


def test_it_comes_back_in_the_moment_in_which_the_last_one_has_left(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.flows.clear()
            broker.agrees.clear()
            (publishing,) = begin(topics.publish("a", TEXT, "one"))
            await turns()
            topics.unsubscribe(servers[0].transport, "a")
            await turns()
            broker.agrees.set()
            broker.flow()
            assert await asyncio.wait_for(publishing, 5) == 0

    net.run(test())
    assert not caplog.records


def test_a_topic_that_nobody_wants_any_more(net: Network) -> None:
    """A broker may have sent before it heard that."""

    async def test() -> None:
        async with process(net, 1) as (topics, broker, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            await topics.publish("a", TEXT, "one")
            _, topic, data = broker.hub.stored[0]
            broker.receive(topic + "b", data, "7")
            await topics.publish("a", TEXT, "two")
            assert await payloads(clients[0], 2) == [b"one", b"two"]

    net.run(test())


def test_who_has_left_does_not_subscribe(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            transport = servers[0].transport
            transport.disconnect(graceful=False)
            await transport.wait_disconnected()
            assert await topics.subscribe(transport, "a") is None
            assert broker.calls == []

    net.run(test())


def test_a_broker_that_fails_on_its_own_is_told_of(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for the end of a subscription."""

    async def unsubscribe(topic: str) -> None:
        raise LookupError(f"no {topic}")

    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            broker.unsubscribe = unsubscribe
            await topics.subscribe(servers[0].transport, "a")
            topics.unsubscribe(servers[0].transport, "a")
            await turns()

    net.run(test())
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "no a" in caplog.text


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
            broker.cut()  # once more, as it comes back
            broker.mend()
            assert await publishing == 1
            assert await clients[0].payload() == b"one"

    net.run(test())


def test_a_broker_that_is_away_is_not_asked_again_at_once(net: Network) -> None:
    async def test() -> None:
        async with process(net, 2) as (topics, broker, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            broker.refuses = True
            (replaying,) = begin(topics.subscribe(servers[1].transport, "a", since="0"))
            await topics.publish("a", TEXT, "one")
            await turns(100)
            assert 0 < sum(call.startswith("missed") for call in broker.calls) < 10
            broker.refuses = False
            await replaying

    net.run(test())


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (math.nan, ValueError), (False, TypeError), ("1", TypeError)])
def test_what_is_no_time_to_wait_for_the_broker(net: Network, wrong: object, error: type[Exception]) -> None:
    async def test() -> None:
        async with process(net, 0) as (topics, broker, _, _):
            with pytest.raises(error, match="timeout"):
                await topics.publish("a", TEXT, "one", timeout=wrong)
            assert broker.hub.stored == []

    net.run(test())


def test_another_thread_is_told_so(net: Network) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, (server,)):
            await topics.subscribe(server.transport, "a")
            asked = [*broker.calls]

            async def subscribe_another() -> None:
                async with subscribers(net, 1) as (_, others):
                    await topics.subscribe(others[0].transport, "b")

            for call in (lambda: net.run(subscribe_another()), lambda: net.run(topics.publish("a", TEXT, "one"))):
                _, failure = call_in_thread(call)
                assert isinstance(failure, RuntimeError)
                assert "its transports belong to thread" in str(failure)
            assert (broker.hub.stored, broker.calls) == ([], asked)

    net.run(test())


@pytest.mark.parametrize("wrong", ["", "a..b", "a.*", "a b"])
def test_what_is_no_topic(net: Network, wrong: str) -> None:
    async def test() -> None:
        async with process(net, 1) as (topics, broker, _, servers):
            with pytest.raises(ValueError, match="topic is "):
                await topics.publish(wrong, TEXT, "one")
            with pytest.raises(ValueError, match="topic is "):
                await topics.subscribe(servers[0].transport, wrong)
            assert (broker.hub.stored, broker.calls) == ([], [])

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
            with pytest.raises(RuntimeError, match="async with"):
                await topics.publish("b", TEXT, "one")

    net.run(test())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_broker_is_closed_when_nobody_asks_it_any_more(net: Network) -> None:
    class Slow(MemoryBroker):
        async def subscribe(self, topic: str) -> str | None:
            try:
                return await super().subscribe(topic)
            finally:
                await turns()
                self.calls.append("no more")

    async def test() -> None:
        broker = Slow()
        broker.agrees.clear()
        async with subscribers(net, 1) as (_, servers), WSTopics(broker) as topics:
            (asking,) = begin(topics.subscribe(*transports(servers), "a"))
            await turns()
        assert broker.calls == ["subscribe a", "no more", "close"]
        with pytest.raises(WSBrokerError, match="was closed before it has agreed"):
            await asking

    net.run(test())
