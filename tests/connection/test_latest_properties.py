"""send_latest: what holds for any sequence of keys and reads, and for keys with code of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows import PICOWS_DEBUG_LL, WSMsgType
from tests.connection.networks import Network, Recorder, over_every_network, over_tcp_and_tls
from tests.connection.peers import TEXT, close_payload, raw_client
from tests.connection.producers import payloads, resume, send_all, skip, stall


class Meddling:
    """A key that acts when it is compared for the nth time."""

    act: Callable[[], object] | None = None
    after = 0
    equal = False

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.after -= 1
        if self.after == 0 and self.act is not None:
            self.act()
        return self.equal


@over_tcp_and_tls
@pytest.mark.parametrize(("comparison", "equal"), [(1, False), (2, False), (1, True)], ids=["first", "second", "equal"])
@pytest.mark.parametrize("act", ["send_latest", "close", "abort"])
def test_keys_that_act_when_they_are_compared(net: Network, act: str, comparison: int, equal: bool) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport)
            acts: dict[str, Callable[[], object]] = {
                "send_latest": lambda: transport.send_latest("other", WSMsgType.TEXT, "other"),
                "close": lambda: transport.send_close(1000),
                "abort": lambda: transport.disconnect(graceful=False),
            }
            before = transport.write_buffer_size
            key = Meddling()
            assert transport.send_latest(key, WSMsgType.TEXT, "one") is True
            key.act, key.after, key.equal = acts[act], comparison, equal
            assert transport.send_latest(Meddling(), WSMsgType.TEXT, "two") is (act == "send_latest")
            assert key.after <= 0
            if act == "abort":
                await listener.disconnected.wait()
                peer.writer.transport.abort()
                return
            waiting = [b"two", b"other"] if equal else [b"one", b"other", b"two"]
            if act == "send_latest":
                assert transport.write_buffer_size == before + sum(2 + len(each) for each in waiting)
            await skip(peer, sent)
            expected = waiting if act == "send_latest" else [b"one", close_payload(1000)]
            assert await payloads(peer, len(expected)) == expected

    net.run(test())


def acting_logger(acts: list[Callable[[], object]]) -> logging.Logger:
    """Does what it is given when it is told that a TEXT was sent."""

    class Acting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if acts and "sent TEXT" in record.getMessage():
                acts.pop()()

    logger = logging.Logger("acting", level=PICOWS_DEBUG_LL)
    logger.addHandler(Acting())
    return logger


@pytest.mark.parametrize(("comparison", "equal"), [(1, True), (2, False)], ids=["equal", "second"])
def test_a_comparison_that_sends_what_waits_while_the_log_adds_to_it(net: Network, comparison: int, equal: bool) -> None:
    acts: list[Callable[[], object]] = []
    logger = acting_logger(acts)

    async def test() -> None:
        async with raw_client(net, Recorder, logger_name=logger) as (peer, listener):
            transport = listener.transport
            transport.send(WSMsgType.TEXT, "be", fin=False)
            key = Meddling()
            assert transport.send_latest(key, WSMsgType.TEXT, "one") is True

            def end_the_message() -> None:
                transport.send(WSMsgType.CONTINUATION, "gin")
                acts.append(lambda: transport.send_latest("late", WSMsgType.TEXT, "late"))
                transport.send_latest("later", WSMsgType.TEXT, "later")

            key.act, key.after, key.equal = end_the_message, comparison, equal
            assert transport.send_latest(Meddling(), WSMsgType.TEXT, "two") is True
            assert not acts
            assert await payloads(peer, 6) == [b"be", b"gin", b"one", b"late", b"later", b"two"]

    net.run(test())


def test_the_log_ends_the_connection_while_what_waits_goes_out(net: Network) -> None:
    acts: list[Callable[[], object]] = []
    logger = acting_logger(acts)

    async def test() -> None:
        async with raw_client(net, Recorder, logger_name=logger) as (peer, listener):
            transport = listener.transport
            transport.send(WSMsgType.TEXT, "be", fin=False)
            for key in ("one", "two"):
                assert transport.send_latest(key, WSMsgType.TEXT, key) is True
            acts.append(lambda: transport.send_close(1000))
            transport.send(WSMsgType.CONTINUATION, "gin")
            assert await payloads(peer, 4) == [b"be", b"gin", b"one", close_payload(1000)]
            transport.disconnect()
            assert await peer.reader.read() == b""

    net.run(test())


def test_the_log_closes_while_a_close_sends_what_waits(net: Network) -> None:
    """One CLOSE is sent, the first."""
    acts: list[Callable[[], object]] = []
    logger = acting_logger(acts)

    async def test() -> None:
        async with raw_client(net, Recorder, logger_name=logger) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport)
            assert transport.send_latest("key", WSMsgType.TEXT, "one") is True
            acts.append(lambda: transport.send_close(3000))
            transport.send_close(1000)
            assert not acts
            await skip(peer, sent)
            assert await payloads(peer, 2) == [b"one", close_payload(3000)]
            transport.disconnect()
            assert await peer.reader.read() == b""

    net.run(test())


class Freeing(Meddling):
    """In its first comparison it ends the connection, and takes the memory of what waited."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if self.act is None:
            return True
        act, self.act = self.act, None
        act()
        self.taken = [{1: 7} for _ in range(100)]
        return False


def test_a_key_that_frees_what_it_is_compared_with() -> None:
    net = Network()

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport)
            assert transport.send_latest(1, WSMsgType.TEXT, "one") is True
            key = Freeing()
            key.act = lambda: transport.send_close(1000)
            assert transport.send_latest(key, WSMsgType.TEXT, "two") is False
            await skip(peer, sent)
            assert await payloads(peer, 2) == [b"one", close_payload(1000)]

    net.run(test())


KEYS = st.lists(st.sampled_from("abcde"), max_size=12)


@over_tcp_and_tls
@settings(max_examples=8, deadline=None)
@given(phases=st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=3))
def test_any_sequence_of_keys(net: Network, phases: list[tuple[list[str], list[str]]]) -> None:
    """Each phase: those sent while the peer reads nothing, and those while it keeps up."""

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            number = 0
            for slow, quick in phases:
                sent = await stall(peer, listener.transport)
                newest: dict[str, str] = {}
                for key in slow:
                    number += 1
                    newest[key] = f"{key}{number}"
                    send_all(listener.transport, newest[key])
                await skip(peer, sent)
                assert await payloads(peer, len(newest)) == [message.encode() for message in newest.values()]
                messages = [f"{key}{number + i}" for i, key in enumerate(quick, 1)]
                number += len(quick)
                send_all(listener.transport, *messages)
                assert await payloads(peer, len(messages)) == [message.encode() for message in messages]

    net.run(test())


@over_every_network
@settings(max_examples=5, deadline=None)
@given(acts=st.lists(st.sampled_from(["a", "b", "c", "d", "read"]), min_size=10, max_size=80))
def test_a_peer_that_reads_by_fits_and_starts(net: Network, acts: list[str]) -> None:
    """Each key's values come in their order, and in the end the newest."""

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            await stall(peer, listener.transport)
            reading = asyncio.ensure_future(peer.receive_all())
            sent: dict[bytes, int] = {}
            for number, act in enumerate(acts):
                if act == "read":
                    resume(peer)
                    for _ in range(3):
                        await asyncio.sleep(0)
                    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                else:
                    sent[act.encode()] = number
                    listener.transport.send_latest(act, WSMsgType.TEXT, b"%s%09d" % (act.encode(), number) + bytes(30_000))
            listener.transport.disconnect()
            resume(peer)
            received: dict[bytes, int] = {}
            for frame in await reading:
                if frame.msg_type == TEXT:
                    key, number = frame.payload[:1], int(frame.payload[1:10])
                    assert received.get(key, -1) < number
                    received[key] = number
            assert received == sent

    net.run(test())
