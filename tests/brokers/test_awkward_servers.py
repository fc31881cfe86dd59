"""Servers that hang, load, refuse or were set up by somebody else; and what is asked of them while they come back."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from picows import WSBrokerError, WSMsgType, WSTopics
from picows.errors import WSPositionError
from tests.brokers.servers import PASSWORD, PLAIN, STORES, USER, Relay, Server, process, publish_all, server_of
from tests.connection.networks import Network, subscribers, transports

TEXT = WSMsgType.TEXT
REDIS = ["redis", "redis-streams"]


async def until_nobody_listens(topics: Any, kind: str, topic: str) -> None:
    """Whatever the server sends, it sends to nobody."""
    broker = topics._broker
    while True:
        if kind in REDIS:
            ((_, count),) = await broker._client.pubsub_numsub(f"picows:{topic}")
        else:
            import nats.errors

            count = 1
            try:
                await broker._client.request(broker._live + topic, b"", timeout=0.05)
            except nats.errors.NoRespondersError:
                count = 0
            except nats.errors.TimeoutError:
                pass
        if not count:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", [*PLAIN, *STORES])
def test_a_server_that_hangs(
    net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is away, too: told, and connected to again."""
    from picows.brokers import nats, redis

    monkeypatch.setattr(nats, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(redis, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(nats, "CONFIRM_TIMEOUT", 0.4)
    monkeypatch.setattr(redis, "CONFIRM_TIMEOUT", 0.4)

    async def test() -> None:
        async with process(net, kind, tmp_path) as (server, topics, clients, servers):
            assert server.process is not None
            await topics.subscribe(servers[0].transport, "a")
            assert await topics.publish("a", TEXT, "one") == 1
            server.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)  # a moment may pass, in which it still answers
            try:
                with pytest.raises(WSBrokerError):
                    await asyncio.wait_for(topics.publish("b", TEXT, "not confirmed", timeout=None), 10)
                while "was lost" not in caplog.text:
                    await asyncio.sleep(0.01)
            finally:
                server.process.send_signal(signal.SIGCONT)
            await topics.publish("a", TEXT, "two", timeout=None)
            assert [await clients[0].payload() for _ in range(2)] == [b"one", b"two"]

    net.run(test())


@pytest.mark.parametrize("kind", REDIS)
def test_idle_servers_are_not_lost(
    net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("picows.brokers.redis.ANSWER_TIMEOUT", 0.05)

    async def test() -> None:
        async with process(net, kind, tmp_path) as (_server, topics, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            await asyncio.sleep(0.3)
            assert await topics.publish("a", TEXT, "one") == 1
            assert await clients[0].payload() == b"one"

    net.run(test())
    assert "was lost" not in caplog.text


def test_a_server_that_still_loads(net: Network, tmp_path: Path) -> None:
    """Redis takes connections and subscriptions before it has loaded what it stores; publishes wait for the rest."""

    async def test() -> None:
        async with process(net, "redis-streams", tmp_path) as (server, topics, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            # It looks at its connections after every 1024 commands.
            await topics._broker._client.eval("for i = 1, 10000 do redis.call('SET', KEYS[1], i) end", 1, "key")
            await server.kill()
            with pytest.raises(WSBrokerError):
                await topics.publish("a", TEXT, "not confirmed")
            waiting = asyncio.ensure_future(publish_all(topics, "a", range(10), timeout=None))
            await server.start("--key-load-delay", "100")
            with pytest.raises(WSBrokerError, match="cannot be reached: Redis is loading"):
                await WSTopics(server.broker()).__aenter__()
            assert await waiting == [1] * 10
            assert [int(await clients[0].payload()) for _ in range(10)] == list(range(10))

    net.run(test())


@pytest.mark.parametrize("kind", REDIS)
def test_what_is_asked_while_the_connection_comes_back(
    net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picows.brokers.redis.ANSWER_TIMEOUT", 60)

    async def test() -> None:
        async with server_of(kind, tmp_path) as server, subscribers(net, 2) as (clients, servers):
            relay, first, second = Relay(server.port), *transports(servers)
            async with relay, WSTopics(server.broker()) as here, WSTopics(server.broker(relay.port)) as there:
                await there.subscribe(first, "stays")
                await there.subscribe(first, "goes")
                await there.subscribe(first, "goes.and.comes")
                await relay.cut()
                relay.flows.clear()
                await relay.mend()
                await relay.connected.wait()
                late = asyncio.ensure_future(there.subscribe(second, "late"))
                there.unsubscribe(first, "goes")
                there.unsubscribe(first, "goes.and.comes")
                await asyncio.sleep(0.05)
                again = asyncio.ensure_future(there.subscribe(first, "goes.and.comes"))
                await asyncio.sleep(0.05)
                relay.flows.set()
                await asyncio.wait_for(asyncio.gather(late, again), 10)
                await until_nobody_listens(here, kind, "goes")
                for topic in ("late", "stays", "goes.and.comes"):
                    await here.publish(topic, TEXT, topic)
                assert await clients[1].payload() == b"late"
                assert {await clients[0].payload() for _ in range(2)} == {b"stays", b"goes.and.comes"}

    net.run(test())


@pytest.mark.parametrize("kind", REDIS)
def test_a_topic_that_redis_forbids_is_refused_alone(
    net: Network, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is asked for on a connection that stands, or while it is away."""

    async def test() -> None:
        async with server_of(kind, tmp_path) as server, subscribers(net, 1) as (clients, servers):
            relay, transport = Relay(server.port), servers[0].transport
            limited = server.broker(relay.port)
            limited._url = limited._url.replace("redis://:", "redis://limited:")
            async with relay, WSTopics(server.broker()) as free:
                rules = ["on", f">{PASSWORD}", "~*", "+@all", "resetchannels", "&picows:[*]", "&picows:allowed*"]
                await free._broker._client.execute_command("ACL", "SETUSER", "limited", *rules)
                async with WSTopics(limited) as topics:
                    for number, away in enumerate((False, True)):
                        if away:
                            await relay.cut()
                            while topics._broker_there.is_set():
                                await asyncio.sleep(0.01)
                        names = [f"allowed.{number}", f"forbidden.{number}", f"allowed.{number}.too"]
                        asked = [asyncio.ensure_future(topics.subscribe(transport, name)) for name in names]
                        if away:
                            await asyncio.sleep(0)
                            await relay.mend()
                        outcome = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
                        assert [isinstance(each, WSBrokerError) for each in outcome] == [False, True, False]
                        assert "no permissions" in str(outcome[1])
                        for name in ("allowed.0", f"allowed.{number}.too"):
                            await free.publish(name, TEXT, name)
                            assert await clients[0].payload() == name.encode()

    net.run(test())
    assert caplog.text.count("was lost") == 1


NATS_USER = f'user: {USER}, password: "{PASSWORD}"'


def test_what_nats_forbids_is_refused_alone(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        server = server_of("nats", tmp_path)
        server.configure(f"""authorization {{ users: [{{ {NATS_USER}, permissions: {{
            subscribe: {{ deny: picows.Forbidden }}, publish: {{ deny: picows.Silent }} }} }}] }}""")
        async with server, subscribers(net, 1) as (clients, servers), WSTopics(server.broker()) as topics:
            asked = [topics.subscribe(servers[0].transport, name) for name in ("first", "Forbidden", "last")]
            first, refused, last = await asyncio.gather(*asked, return_exceptions=True)
            assert (first, last) == (None, None)
            assert isinstance(refused, WSBrokerError)
            assert "does not permit" in str(refused)
            sent = [topics.publish(name, TEXT, name) for name in ("first", "Silent", "last")]
            first, refused, last = await asyncio.gather(*sent, return_exceptions=True)
            assert (first, last) == (1, 1)
            assert isinstance(refused, WSBrokerError)
            assert "does not permit" in str(refused)
            assert [await clients[0].payload() for _ in range(2)] == [b"first", b"last"]

    net.run(test())


def test_one_subscription_too_many_takes_the_others_for_a_moment_only(
    net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client of NATS closes itself for good."""

    async def test() -> None:
        server, names = server_of("nats", tmp_path), ["one", "two", "three", "four"]
        server.configure(f"max_subscriptions: 4\nauthorization {{ {NATS_USER} }}")
        async with server, subscribers(net, 1) as (clients, servers), WSTopics(server.broker()) as topics:
            for name in names:
                await topics.subscribe(servers[0].transport, name)
            with pytest.raises(WSBrokerError, match="has not confirmed"):
                await topics.subscribe(servers[0].transport, "five")
            for name in names:
                await topics.publish(name, TEXT, name, timeout=10)
                assert await clients[0].payload() == name.encode()
            topics.unsubscribe(servers[0].transport, names[0])
            await topics.subscribe(servers[0].transport, "other")
            await topics.publish("other", TEXT, "here")
            assert await clients[0].payload() == b"here"

    net.run(test())
    assert "is back" in caplog.text


@pytest.mark.parametrize("kind", ["nats", "jetstream"])
def test_who_publishes_more_than_a_standing_server_takes_is_told(
    net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of NATS waits for room without a limit, and sends no ping meanwhile."""

    async def test() -> None:
        async with server_of(kind, tmp_path) as server, WSTopics(server.broker()) as topics:
            await topics.publish("a", TEXT, "taken")
            monkeypatch.setattr("picows.brokers.nats.CONFIRM_TIMEOUT", 0.2)
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            outcome = await asyncio.wait_for(publish_all(topics, "a", ["x" * 100_000] * 200), 10)
            assert {type(each) for each in outcome} == {WSBrokerError}
            assert all("did not answer in 0.2 seconds" in str(each) for each in outcome)
            server.process.send_signal(signal.SIGCONT)

    net.run(test())


def test_a_confirmation_of_nats_is_asked_for_behind_what_it_confirms(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        async with server_of("nats", tmp_path) as server, subscribers(net, 1) as (_, servers):
            relay = Relay(server.port)
            async with relay, WSTopics(server.broker(relay.port)) as topics:
                await topics.subscribe(servers[0].transport, "a")
                assert b"SUB" not in relay.asked.rpartition(b"PING")[2]
                await topics.publish("a", TEXT, "confirmed")
                assert b"confirmed" not in relay.asked.rpartition(b"PING")[2]

    net.run(test())


@pytest.mark.parametrize("kind", [*PLAIN, *STORES])
def test_a_topic_that_nobody_wants_is_not_sent(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with process(net, kind, tmp_path) as (_server, topics, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            topics.unsubscribe(servers[0].transport, "a")
            await until_nobody_listens(topics, kind, "a")

    net.run(test())


@pytest.mark.parametrize("kind", ["nats", "jetstream"])
def test_a_message_that_is_too_large_fails_alone(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with server_of(kind, tmp_path) as server, WSTopics(server.broker()) as topics:
            first, large, last = await publish_all(topics, "a", ["one", "x" * (1 << 20), "two"])
            assert (first, last) == (0, 0)
            assert isinstance(large, WSBrokerError)
            assert "takes 1048576: nothing was published" in str(large)

    net.run(test())


async def add_stream(server: Server, **options: Any) -> None:
    import nats

    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name="topics", subjects=["picows.>"], **options)
    await client.close()


@pytest.mark.parametrize("other", [None, "elsewhere.>"])
def test_a_stream_without_positions_is_refused(net: Network, other: str | None, tmp_path: Path) -> None:
    async def test() -> None:
        from nats.js.api import RePublish

        async with server_of("jetstream", tmp_path) as server:
            await add_stream(server, republish=RePublish(src="picows.>", dest=other) if other else None)
            with pytest.raises(WSBrokerError, match=r"does not republish picows\.> to picows-live\.>"):
                await WSTopics(server.broker()).__aenter__()

    net.run(test())


def test_a_stream_with_a_limit_for_each_topic(net: Network, tmp_path: Path) -> None:
    """There old messages of one topic go while others stay: only a position that is still there is good."""

    async def test() -> None:
        from nats.js.api import RePublish

        async with server_of("jetstream", tmp_path) as server, subscribers(net, 2) as (clients, servers):
            republish = RePublish(src="picows.>", dest="picows-live.>")
            await add_stream(server, republish=republish, max_msgs_per_subject=3)
            async with WSTopics(server.broker()) as topics:
                await topics.publish("b", TEXT, "stays")  # 1
                for number in range(2, 7):
                    await topics.publish("a", TEXT, str(number))
                for position in ("1", "2", "3"):  # of the other topic, and those of which the next ones are gone
                    with pytest.raises(WSPositionError):
                        await topics.subscribe(servers[0].transport, "a", since=position)
                await topics.subscribe(servers[0].transport, "a", since="4")
                assert [await clients[0].payload() for _ in range(2)] == [b"5", b"6"]
                assert await topics.subscribe(servers[1].transport, "a", since="6") == "6"
                with pytest.raises(WSPositionError, match="last position that was stored is 6"):
                    await topics.subscribe(servers[1].transport, "b", since="7")

    net.run(test())


def test_arguments_of_the_redis_broker() -> None:
    from picows.brokers.redis import RedisBroker

    for wrong, error, why in ((-1, ValueError, "history"), (True, TypeError, "history")):
        with pytest.raises(error, match=why):
            RedisBroker("redis://localhost", history=wrong)
    with pytest.raises(ValueError, match="url begins with 'http', expected redis://"):
        RedisBroker("http://localhost")
    assert repr(RedisBroker("redis://user:secret@host")) == "<RedisBroker host:6379>"
    assert repr(RedisBroker("rediss://host:7000/3")) == "<RedisBroker host:7000>"
    assert repr(RedisBroker("unix:///run/redis.sock?password=secret")) == "<RedisBroker /run/redis.sock>"


def test_names_of_nats_servers() -> None:
    from picows.brokers.nats import NATSBroker

    assert repr(NATSBroker("nats://user:secret@host")) == "<NATSBroker host:4222>"
    assert repr(NATSBroker(["one:4223", "tls://token@two"])) == "<NATSBroker one:4223, two:4222>"


@pytest.mark.parametrize("kind", STORES)
def test_more_is_missed_than_is_fetched_at_once(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with process(net, kind, tmp_path) as (_, topics, clients, servers):
            begin = await topics.subscribe(servers[0].transport, "a")
            topics.unsubscribe(servers[0].transport, "a")
            await publish_all(topics, "a", range(900))
            await topics.subscribe(servers[0].transport, "a", since=begin)
            assert [int(await clients[0].payload()) for _ in range(900)] == list(range(900))

    net.run(test())


def test_what_is_left_of_a_redis_stream(net: Network, tmp_path: Path) -> None:
    """Good is each position behind which nothing was removed."""

    async def test() -> None:
        async with process(net, "redis-streams", tmp_path) as (_, topics, clients, servers):
            transport, client = servers[0].transport, topics._broker._client
            await publish_all(topics, "a", range(10))
            positions = [entry.decode() for entry, _ in await client.xrange("picows:a")]
            await client.xtrim("picows:a", maxlen=5, approximate=False)
            for number in (4, 5, 6, 9):
                good = number > 4  # behind 4 nothing is missing, either, but who knows
                if good:
                    await topics.subscribe(transport, "a", since=positions[number])
                    topics.unsubscribe(transport, "a")
                    got = [int(await clients[0].payload()) for _ in range(9 - number)]
                    assert got == list(range(number + 1, 10))
                else:
                    with pytest.raises(WSPositionError, match=f"stored is {positions[5]}"):
                        await topics.subscribe(transport, "a", since=positions[number])
            await client.xtrim("picows:a", maxlen=0, approximate=False)
            with pytest.raises(WSPositionError, match="stored is none"):
                await topics.subscribe(transport, "a", since=positions[8])
            await topics.subscribe(transport, "a", since=positions[9])

    net.run(test())


def test_a_redis_key_of_somebody_else(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        async with process(net, "redis-streams", tmp_path) as (_, topics, _, servers):
            await topics._broker._client.set("picows:a", "not a stream")
            for call in (
                topics.publish("a", TEXT, "one"),
                topics.subscribe(servers[0].transport, "a"),
                anext_of(topics._broker.missed("a", "0")),
            ):
                with pytest.raises(WSBrokerError, match="WRONGTYPE"):
                    await call
            await until_nobody_listens(topics, "redis-streams", "a")

    net.run(test())


async def anext_of(iterator: AsyncIterator[Any]) -> Any:
    async for each in iterator:
        return each


@pytest.mark.parametrize("kind", STORES)
def test_what_is_no_position_of_this_broker(net: Network, kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with process(net, kind, tmp_path) as (_server, topics, _, servers):
            await topics.publish("a", TEXT, "one")
            for wrong in ("1-2-3", f"1-{1 << 64}"):
                with pytest.raises(ValueError, match="a position of"):
                    await topics.subscribe(servers[0].transport, "a", since=wrong)
            assert topics.topics(servers[0].transport) == frozenset()

    net.run(test())


def test_nothing_is_logged_of_an_ordinary_end(net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        for kind in (*PLAIN, *STORES):
            folder = tmp_path / kind
            folder.mkdir()
            async with process(net, kind, folder) as (_server, topics, _, servers):
                await topics.subscribe(servers[0].transport, "a")

    net.run(test())
    assert not [record for record in caplog.records if record.name.startswith("picows.brokers")]
