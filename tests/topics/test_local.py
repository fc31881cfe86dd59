"""WSTopics in one process: who gets what, how a transport leaves, and what it all costs."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows import WSDeflate, WSMsgType, WSTopics, WSTransport
from picows._members import each, with_member, without_member
from tests.connection.networks import (
    Network,
    Recorder,
    over_both_loops,
    over_every_network,
    subscribers,
    transports,
)
from tests.connection.threads import call_in_thread


@over_every_network
def test_a_topic_reaches_those_that_have_subscribed(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 4) as (clients, servers):
            topics = WSTopics()
            first, second, third, _ = transports(servers)
            for transport in (first, second, second):
                topics.subscribe(transport, "a.b")
            topics.subscribe(third, "a.c")
            topics.subscribe(first, "a.c")
            assert topics.publish("a.b", WSMsgType.TEXT, "to two") == 2
            assert topics.publish("a.c", WSMsgType.BINARY, b"to the others") == 2
            assert topics.publish("a", WSMsgType.TEXT, "to nobody") == 0
            assert [topics.subscribers(name) for name in ("a.b", "a.c", "a")] == [2, 2, 0]
            assert topics.topics(first) == {"a.b", "a.c"}
            topics.unsubscribe(first, "a.b")
            topics.unsubscribe(third, "a.b")
            assert topics.publish("a.b", WSMsgType.TEXT, "to one") == 1
            topics.unsubscribe_all(first)
            topics.unsubscribe_all(first)
            assert topics.publish("a.c", WSMsgType.TEXT, "to the third") == 1
            for server in servers:
                server.transport.send(WSMsgType.TEXT, b"end")
            expected = [[b"to two", b"to the others"], [b"to two", b"to one"], [b"to the others", b"to the third"], []]
            for client, payloads in zip(clients, expected):
                assert [await client.payload() for _ in payloads] == payloads
                assert await client.payload() == b"end"
            assert topics.topics(first) == frozenset()

    net.run(test())


class Leaving(Recorder):
    """Asks for its topics when it ends, and subscribes once more."""

    topics: WSTopics
    left: frozenset[str]

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.left = self.topics.topics(transport)
        self.topics.subscribe(transport, "too.late")
        super().on_ws_disconnected(transport)
        raise RuntimeError("a callback that fails")


@over_every_network
def test_a_transport_that_ends_leaves_by_itself(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 3, Leaving, logger_name="picows.leaving") as (clients, servers):
            topics, others = WSTopics(), WSTopics()
            for server in servers:
                server.topics = topics
                for name in ("a", "b"):
                    topics.subscribe(server.transport, name)
                others.subscribe(server.transport, "c")
            clients[0].transport.disconnect(graceful=False)
            await servers[1].transport.close()
            await servers[0].disconnected.wait()
            for server in servers[:2]:
                assert server.left == {"a", "b"}
                assert topics.topics(server.transport) == others.topics(server.transport) == frozenset()
            assert [topics.subscribers("a"), others.subscribers("c"), topics.subscribers("too.late")] == [1, 1, 0]
            topics.subscribe(servers[0].transport, "a")
            assert topics.subscribers("a") == topics.publish("a", WSMsgType.TEXT, "to the last") == 1

    net.run(test())


@pytest.mark.parametrize(
    ("topic", "error", "sentence"),
    [
        ("", ValueError, "names between the dots"),
        ("a..b", ValueError, "names between the dots"),
        (".a", ValueError, "names between the dots"),
        ("a.*", ValueError, r"'\*' is a wildcard"),
        ("a.>", ValueError, "'>' is a wildcard"),
        ("a b", ValueError, "' ' is no visible ASCII"),
        ("a\n", ValueError, r"'\\n' is no visible ASCII"),
        ("\u00e4", ValueError, "'\u00e4' is no visible ASCII"),
        (b"a", TypeError, "topic is of type bytes"),
    ],
)
def test_a_topic_that_is_none(net: Network, topic: Any, error: type[Exception], sentence: str) -> None:
    async def test() -> None:
        async with subscribers(net, 1) as (_, servers):
            topics = WSTopics()
            for call in (topics.subscribe, topics.unsubscribe):
                with pytest.raises(error, match=sentence):
                    call(servers[0].transport, topic)
            with pytest.raises(error, match=sentence):
                topics.subscribers(topic)
            with pytest.raises(error, match=sentence):
                topics.publish(topic, WSMsgType.TEXT, "")

    net.run(test())


def test_every_other_visible_character_may_be_in_a_topic(net: Network) -> None:
    name = "".join(map(chr, range(33, 127))).replace("*", "").replace(">", "")

    async def test() -> None:
        async with subscribers(net, 1) as (_, servers):
            topics = WSTopics()
            topics.subscribe(servers[0].transport, name)
            assert topics.topics(servers[0].transport) == {name}

    net.run(test())


def test_wrong_arguments(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 1) as (clients, servers):
            topics = WSTopics()
            transport = servers[0].transport
            for wrong in (None, servers[0]):
                for call in (topics.subscribe, topics.unsubscribe):
                    with pytest.raises(TypeError, match="transport"):
                        call(wrong, "a")
                for ask in (topics.unsubscribe_all, topics.topics):
                    with pytest.raises(TypeError, match="transport"):
                        ask(wrong)
            for members in range(2):
                with pytest.raises(ValueError, match="expected TEXT or BINARY"):
                    topics.publish("a", WSMsgType.PING, b"")
                with pytest.raises(TypeError, match="message is of type int"):
                    topics.publish("a", WSMsgType.TEXT, 5)  # type: ignore[arg-type]
                if not members:
                    topics.subscribe(transport, "a")
            topics.publish("a", WSMsgType.TEXT, "only this")
            assert await clients[0].payload() == b"only this"

    net.run(test())


@over_both_loops
def test_another_thread_is_told_so(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 2) as (_, servers):
            topics = WSTopics()
            transport = servers[0].transport
            topics.subscribe(transport, "a")
            for call in (
                (topics.subscribe, servers[1].transport, "a"),
                (topics.unsubscribe, transport, "a"),
                (topics.unsubscribe_all, transport),
                (topics.publish, "a", WSMsgType.TEXT, "x"),
            ):
                _, failure = call_in_thread(*call)
                assert isinstance(failure, RuntimeError)
            assert topics.topics(transport) == {"a"}
            assert topics.subscribers("a") == 1

    net.run(test())


def test_the_newest_value_for_a_peer_that_does_not_keep_up(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 2) as (clients, servers):
            topics = WSTopics()
            for transport in transports(servers):
                topics.subscribe(transport, "prices")
            slow = clients[1].transport.underlying_transport
            slow.pause_reading()
            while not servers[1].transport.write_buffer_size:
                servers[1].transport.send(WSMsgType.BINARY, bytes(1 << 20))
            for number in range(10):
                assert topics.publish("prices", WSMsgType.TEXT, str(number), latest="x") == 2
                assert await clients[0].payload() == str(number).encode()
            slow.resume_reading()
            while not (payload := await clients[1].payload()).isdigit():
                pass
            assert payload == b"9"

    net.run(test())


def test_one_deflated_message_for_all(net: Network) -> None:
    async def test() -> None:
        topics = WSTopics()
        servers: list[Recorder] = []

        def factory(request: object) -> Recorder:
            servers.append(Recorder())
            return servers[-1]

        deflate = WSDeflate(min_size=1 << 30)
        async with net.serve(factory, compression=deflate) as url:
            clients = [await net.connect(Recorder, url, compression=deflate) for _ in range(2)]
            for transport in transports(servers):
                topics.subscribe(transport, "a")
            for client in clients:
                client.transport.underlying_transport.pause_reading()
            large = "b" * (8 << 20)
            assert topics.publish("a", WSMsgType.TEXT, large, compress=True) == 2
            assert [transport.write_buffer_size for transport in transports(servers)] == [0, 0]
            for client in clients:
                client.transport.underlying_transport.resume_reading()
                assert await client.payload() == large.encode()
                client.transport.disconnect(graceful=False)
                await client.transport.wait_disconnected()

    net.run(test())


@pytest.mark.parametrize(("connections", "sharing"), [(50, 1), (50, 2), (50, 50)])
def test_what_a_subscription_costs(net: Network, connections: int, sharing: int) -> None:
    """Topics that so many connections have in common."""
    total = 25_000  # tables are as full as with four times as many, and it takes a quarter of the time
    each_has = total // connections

    async def test() -> None:
        async with subscribers(net, connections) as (_, servers):
            topics = WSTopics()
            gc.collect()
            tracemalloc.start()
            try:
                for number, server in enumerate(servers):
                    begin = number // sharing * each_has
                    for topic in range(begin, begin + each_has):
                        topics.subscribe(server.transport, f"topic.{topic}")  # a str of its own
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] / total < 200
                for server in servers:
                    topics.unsubscribe_all(server.transport)
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] < 120 * total  # the tables of empty dicts
            finally:
                tracemalloc.stop()
            assert topics.subscribers("topic.0") == 0

    net.run(test())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 24), max_size=80))
def test_sets_of_members(changes: list[int]) -> None:
    """Whatever comes and goes, in the order in which it came."""
    names = [str(number) for number in range(25)]
    expected: dict[str, None] = {}
    members: Any = None
    for number in changes:
        member = names[number]
        if member in expected:
            del expected[member]
            members = without_member(members, member)
        else:
            expected[member] = None
            members = with_member(members, member)
        assert list(each(members)) == list(expected)
    assert (members is None) == (not expected)
