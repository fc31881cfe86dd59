"""Servers that leave something unconfirmed, and what is asked for before they are connected to again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from picows import WSBrokerError, WSMsgType, WSTopics
from tests.brokers.servers import PASSWORD, USER, Relay, process, publish_all, relayed, server_of
from tests.connection.networks import Network, subscribers

TEXT = WSMsgType.TEXT


@pytest.mark.parametrize("kind", ["nats", "jetstream"])
def test_a_subscription_that_is_not_confirmed(net: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picows.brokers.nats.CONFIRM_TIMEOUT", 0.1)

    async def test() -> None:
        async with relayed(net, kind, tmp_path) as (relay, topics, _, servers):
            relay.flows.clear()
            with pytest.raises(WSBrokerError, match="has not confirmed the subscription"):
                await topics.subscribe(servers[0].transport, "a")
            assert topics.topics(servers[0].transport) == frozenset()
            relay.flows.set()

    net.run(test())


def test_what_is_asked_of_nats_before_it_is_connected_to_again(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After most errors of the server its client is closed."""
    monkeypatch.setattr("picows.brokers.nats.RETRY_DELAY", 60)
    caplog.set_level(logging.DEBUG, "picows.brokers")

    async def test() -> None:
        async with relayed(net, "jetstream", tmp_path) as (relay, topics, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            await publish_all(topics, "b", range(3))
            missed = topics._broker.missed("b", "0")
            assert (await missed.__anext__())[0] == "1"
            relay.say(b"-ERR 'Maximum Subscriptions Exceeded'\r\n")
            while "was lost" not in caplog.text:
                await asyncio.sleep(0.001)
            await missed.aclose()
            topics.unsubscribe(servers[0].transport, "a")
            with pytest.raises(WSBrokerError, match="has not confirmed the subscription: ConnectionClosedError"):
                await topics.subscribe(servers[0].transport, "c")
            while "unsubscribing: " not in caplog.text:
                await asyncio.sleep(0.001)
            assert "ending a consumer: " in caplog.text

    net.run(test())


def test_a_nats_server_without_its_streams_is_waited_for(
    net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "picows.brokers")

    def told() -> list[bool]:
        return ["is back" in record.getMessage() for record in caplog.records if record.name == "picows.brokers.nats"]

    async def test() -> None:
        async with process(net, "jetstream", tmp_path) as (server, topics, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            command = list(server.command)
            await server.kill()
            server.command.remove("-js")
            await server.start()
            while not topics._broker._client.is_connected:
                await asyncio.sleep(0.01)
            waiting = asyncio.ensure_future(topics.publish("a", TEXT, "one", timeout=None))
            await asyncio.sleep(0.3)
            assert told() == [False]
            assert not waiting.done()
            await server.kill()
            server.command = command
            await server.start()
            assert await waiting == 1
            assert told() == [False, False, True]
            assert await clients[0].payload() == b"one"

    net.run(test())


def test_messages_that_the_client_of_nats_has_dropped_are_told(
    net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with process(net, "nats", tmp_path) as (_server, topics, _, servers):
            await topics.subscribe(servers[0].transport, "a")
            topics._broker._subscriptions["a"]._pending_bytes_limit = 10  # of 128 MB
            await topics._broker.publish("a", b"x" * 100, None)
            while not caplog.messages:
                await asyncio.sleep(0.001)
            assert caplog.messages == ["messages on picows.a were dropped: this process is too slow"]

    net.run(test())


def test_a_redis_server_that_confirms_nothing_when_it_is_back(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("picows.brokers.redis.ANSWER_TIMEOUT", 0.1)
    caplog.set_level(logging.INFO, "picows.brokers")

    async def test() -> None:
        async with relayed(net, "redis", tmp_path) as (relay, topics, clients, servers):
            await topics.subscribe(servers[0].transport, "a")
            await relay.cut()
            relay.withheld = b"subscribe"
            await relay.mend()
            while "is still away: " not in caplog.text:
                await asyncio.sleep(0.01)
            relay.withheld = b"no such word"
            await topics.publish("a", TEXT, "one", timeout=None)
            assert await clients[0].payload() == b"one"

    net.run(test())


def test_what_comes_behind_an_unsubscription_is_dropped(net: Network, tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []
    told = asyncio.Event()

    def receive(topic: str, data: bytes, position: str | None) -> None:
        received.append((topic, data))
        told.set()

    async def test() -> None:
        async with server_of("redis", tmp_path) as server, Relay(server.port) as relay:
            here, there = server.broker(), server.broker(relay.port)
            for broker in (here, there):
                await broker.open(receive if broker is there else lambda *args: None, lambda: None, lambda: None)
            await there.subscribe("a")
            await there.subscribe("b")
            relay.flows.clear()
            await here.publish("a", b"late", None)
            await there.unsubscribe("a")
            await here.publish("b", b"wanted", None)
            relay.flows.set()
            await told.wait()
            assert received == [("b", b"wanted")]
            await there.close()
            await here.close()

    net.run(test())


def test_nats_may_be_away_when_topics_end(net: Network, tmp_path: Path) -> None:
    """Also where something was not written yet."""

    async def test() -> None:
        async with process(net, "nats", tmp_path) as (server, topics, _, _servers):
            await server.kill()
            while topics._broker_there.is_set():
                await asyncio.sleep(0.001)
            await topics._broker.subscribe("a")

    net.run(test())


def test_a_nats_server_that_takes_fewer_subscriptions_than_before(
    net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends each new connection, too, until it takes them again."""
    caplog.set_level(logging.INFO, "picows.brokers")

    async def test() -> None:
        server = server_of("nats", tmp_path)
        user = f'authorization {{ user: {USER}, password: "{PASSWORD}" }}'
        server.configure(user)
        async with server, subscribers(net, 1) as (clients, servers), WSTopics(server.broker()) as topics:
            for name in ("one", "two", "three", "four"):
                await topics.subscribe(servers[0].transport, name)
            await server.kill()
            settings = Path(server.command[server.command.index("-c") + 1])
            settings.write_text(f"max_subscriptions: 2\n{user}")
            await server.start()
            while caplog.text.count("still away: ") < 2:
                await asyncio.sleep(0.01)
            await server.kill()
            settings.write_text(user)
            await server.start()
            await topics.publish("four", TEXT, "here", timeout=20)
            assert await clients[0].payload() == b"here"

    net.run(test())


def test_a_redis_server_that_forbids_to_ask_for_it(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is forbidden is no subscription, so the connection is no good."""
    monkeypatch.setattr("picows.brokers.redis.ANSWER_TIMEOUT", 0.5)

    async def test() -> None:
        async with server_of("redis", tmp_path) as server, subscribers(net, 1) as (clients, servers):
            limited = server.broker()
            limited._url = limited._url.replace("redis://:", "redis://limited:")
            free = WSTopics(server.broker())
            async with free:
                admin = free._broker._client  # type: ignore[attr-defined]
                await admin.execute_command("ACL", "SETUSER", "limited", "on", f">{PASSWORD}", "~*", "&*", "+@all")
                async with WSTopics(limited) as topics:
                    await topics.subscribe(servers[0].transport, "a")
                    await admin.execute_command("ACL", "SETUSER", "limited", "-ping")
                    while "was lost: " not in caplog.text:
                        await asyncio.sleep(0.01)
                    await admin.execute_command("ACL", "SETUSER", "limited", "+ping")
                    await topics.publish("a", TEXT, "one", timeout=20)
                    assert await clients[0].payload() == b"one"
        assert "'ping' command" in caplog.text

    net.run(test())
