"""Which errors ws_reconnect tries again after, how long it waits, and what it says of that."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from python_socks import ProxyError

from picows import WSBackoff, WSInvalidStatusError, WSInvalidURL, WSListener, ws_reconnect
from tests.connection.networks import Network, Recorder, over_both_loops, over_every_network, over_every_tls, over_tcp_and_tls
from tests.connection.peers import Peer, serve_streams, upgrade_response
from tests.connection.reconnecting import ACCEPT, NEVER, Answers, reconnect, status

FOR_A_WHILE = {
    **{str(code): status(code) for code in (408, 425, 429, 500, 501, 502, 503, 504, 599)},
    "nothing": b"\r\n",
    "garbage": b"\x1b[31mHello\r\nWorld\r\n\r\n",
}
FOR_GOOD = {
    **{str(code): status(code) for code in (200, 304, 400, 401, 403, 404, 407, 410, 426)},
    "redirect to nowhere": status(302),
    "no upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\nConnection: Upgrade\r\n\r\n",
}


async def first_connection(net: Network, answers: Answers, **options: Any) -> None:
    """Come back to a server until it accepts."""
    async with answers.serve(net) as url:
        connections = reconnect(net, url, **options)
        transport, _ = await connections.__anext__()
        transport.disconnect(graceful=False)
        await connections.aclose()


@pytest.mark.parametrize("answer", FOR_A_WHILE.values(), ids=FOR_A_WHILE)
def test_what_may_be_over_soon_is_tried_again(net: Network, answer: bytes) -> None:
    answers = Answers(answer, answer, ACCEPT)
    net.run(first_connection(net, answers))
    assert len(answers.requests) == 3


@pytest.mark.parametrize("answer", FOR_GOOD.values(), ids=FOR_GOOD)
def test_what_stays_as_it_is_is_raised(net: Network, answer: bytes) -> None:
    async def test() -> None:
        answers = Answers(answer, ACCEPT)
        async with answers.serve(net) as url:
            connections = reconnect(net, url)
            with pytest.raises(Exception, match=r"received|redirect"):
                await connections.__anext__()
            with pytest.raises(StopAsyncIteration):
                await connections.__anext__()
            assert len(answers.requests) == 1

    net.run(test())


@over_every_network
def test_what_a_network_does_is_tried_again(net: Network) -> None:
    """A reset, an early end, and silence."""
    seen: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(("reset", "end", "silence", "answer")[len(seen)])
        peer = Peer(reader, writer, masks=False)
        if seen[-1] == "reset":
            writer.transport.abort()
        elif seen[-1] != "end":
            request = await reader.readuntil(b"\r\n\r\n")
            if seen[-1] == "answer":
                peer.write(upgrade_response(request))
            await peer.lost()
        await peer.close()

    async def test() -> None:
        async with serve_streams(net, handle) as url:
            connections = reconnect(net, url, websocket_handshake_timeout=0.2)
            transport, _ = await connections.__anext__()
            assert seen == ["reset", "end", "silence", "answer"]
            transport.disconnect(graceful=False)
            await connections.aclose()

    net.run(test())


@over_every_tls
def test_a_bad_certificate_stays_bad(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Recorder(), use_aiofastnet=False) as url:
            with pytest.raises(ssl.SSLCertVerificationError):
                await reconnect(net, url, ssl_context=ssl.create_default_context(), backoff=NEVER).__anext__()

    net.run(test())


@pytest.mark.parametrize(
    ("scheme", "answer", "again"),
    [
        ("http", status(502), True),
        ("http", b"", True),
        ("http", status(407), False),
        ("http", status(403), False),
        ("socks4", b"\0\x5b" + bytes(6), True),
        ("socks4", b"\0\x5d" + bytes(6), False),
        ("socks5", b"\5\0\5\5\0\1" + bytes(6), True),
        ("socks5", b"\5\0\5\2\0\1" + bytes(6), False),
        ("socks5", b"\5\xff", False),
        ("socks5://a:b@", b"\5\2\1\1", False),
    ],
)
def test_a_proxys_refusals(net: Network, scheme: str, answer: bytes, again: bool) -> None:
    async def test() -> None:
        asked = asyncio.Event()
        count = 0

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            if count == 2:
                asked.set()
            await reader.read(1)
            writer.write(answer)
            await Peer(reader, writer, masks=False).close()

        async with serve_streams(net, proxy) as url:
            through = url.replace("ws://", scheme if "@" in scheme else f"{scheme}://")
            connections = reconnect(net, "ws://127.0.0.1:9/", proxy=through)
            connecting = asyncio.ensure_future(connections.__anext__())
            if again:
                await asked.wait()
                await connections.aclose()
            with pytest.raises(StopAsyncIteration if again else ProxyError):
                await connecting

    net.run(test())


# The user's judgement


def test_the_user_judges(net: Network) -> None:
    async def test() -> None:
        judged: list[Exception] = []

        async def renew_token(error: Exception) -> bool | None:
            judged.append(error)
            await asyncio.sleep(0)
            if isinstance(error, WSInvalidStatusError) and error.response is not None and error.response.status == 401:
                headers["Authorization"] = "new"
                return True
            return None

        headers = {"Authorization": "old"}
        answers = Answers(status(401), status(500), ACCEPT)
        await first_connection(net, answers, retry=renew_token, extra_headers=headers)
        assert [b"Authorization: new" in request for request in answers.requests] == [False, True, True]
        assert [type(error) for error in judged] == [WSInvalidStatusError] * 2

        with pytest.raises(WSInvalidStatusError):
            await first_connection(net, Answers(status(500)), retry=lambda error: False)
        with pytest.raises(WSInvalidStatusError):
            await first_connection(net, Answers(status(404)), retry=lambda error: None)
        await first_connection(net, Answers(status(404), ACCEPT), retry=lambda error: True)

    net.run(test())


def test_headers_from_an_iterator_are_sent_each_time(net: Network) -> None:
    answers = Answers(status(500), ACCEPT)
    net.run(first_connection(net, answers, extra_headers=iter([("X-Mine", "1")])))
    assert all(b"X-Mine: 1" in request for request in answers.requests)


class Clumsy(WSListener):
    def __init__(self) -> None:
        raise LookupError("mine")


def test_faults_of_the_user_are_raised(net: Network) -> None:
    async def test() -> None:
        answers = Answers(ACCEPT)
        async with answers.serve(net) as url:
            with pytest.raises(LookupError, match="mine"):
                await reconnect(net, url, Clumsy).__anext__()
            with pytest.raises(TypeError, match="colour"):
                await reconnect(net, url, colour="blue").__anext__()

    net.run(test())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"url": "http://localhost/"}, WSInvalidURL, "scheme"),
        ({"ws_listener_factory": 5}, TypeError, "ws_listener_factory"),
        ({"backoff": 5}, TypeError, "backoff must be a WSBackoff"),
        ({"retry": 5}, TypeError, "retry must be callable"),
        ({"max_frame_size": 0}, ValueError, "max_frame_size"),
        ({"extra_headers": 5}, TypeError, "extra_headers"),
        ({"extra_headers": {"A B": "c"}}, ValueError, "A B"),
        ({"server_hostname": 5}, TypeError, "server_hostname"),
        ({"sock": None}, TypeError, "socket_factory"),
    ],
)
def test_wrong_arguments_are_refused_by_the_call(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ws_reconnect(**{"ws_listener_factory": WSListener, "url": "ws://localhost/", **arguments})


# Delays


def test_the_delays_of_a_backoff() -> None:
    backoff = WSBackoff(initial=1, factor=3, maximum=20, jitter=None)
    assert list(itertools.islice(backoff.delays(), 6)) == [1, 3, 9, 20, 20, 20]
    assert list(itertools.islice(WSBackoff(2, 1, 2, None).delays(), 3)) == [2, 2, 2]
    assert WSBackoff() == WSBackoff(initial=0.1, factor=2, maximum=30, jitter="full")


def test_full_jitter_is_anything_up_to_the_delay() -> None:
    drawn = [list(itertools.islice(WSBackoff(1, 2, 4).delays(), 4)) for _ in range(200)]
    for longest, values in zip((1, 2, 4, 4), zip(*drawn)):
        assert 0 <= min(values) < longest / 4
        assert longest * 3 / 4 < max(values) <= longest


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"initial": 0}, ValueError, "initial"),
        ({"initial": "1"}, TypeError, "initial"),
        ({"initial": 31}, ValueError, "maximum must be at least initial, 31, got 30"),
        ({"maximum": float("inf")}, ValueError, "maximum"),
        ({"factor": 0.5}, ValueError, "factor"),
        ({"factor": float("nan")}, ValueError, "factor"),
        ({"factor": True}, TypeError, "factor"),
        ({"jitter": "half"}, ValueError, "jitter"),
    ],
)
def test_wrong_backoffs(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        WSBackoff(**arguments)


@over_both_loops
def test_it_waits_as_long_as_it_says(net: Network, delays: list[float]) -> None:
    answers = Answers(status(500), status(500), ACCEPT)
    backoff = WSBackoff(initial=0.05, factor=2, maximum=1, jitter=None)
    net.run(first_connection(net, answers, backoff=backoff, logger_name="delays"))
    assert delays == [0.05, 0.1]
    first, second, third = answers.times
    assert second - first > 0.04
    assert third - second > 0.09


@over_both_loops
def test_delays_grow_until_a_connection_lasts(net: Network, delays: list[float]) -> None:
    """A server that accepts only to drop the connection is not back."""

    async def test() -> None:
        answers = Answers(ACCEPT)
        backoff = WSBackoff(initial=0.001, factor=10, maximum=0.1, jitter=None)
        async with answers.serve(net) as url:
            connections = reconnect(net, url, backoff=backoff, logger_name="delays")
            for lasts in (0, 0, 0, 0.11, 0, 0):
                transport, _ = await connections.__anext__()
                await asyncio.sleep(lasts)
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()
            await connections.aclose()

    net.run(test())
    assert delays == [0.001, 0.01, 0.1, 0.001, 0.01]


# Retry-After


def http_dates(seconds: float) -> list[str]:
    """That far from now, in the three forms that RFC 9110 5.6.7 wants understood."""
    time = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return [time.strftime(form) for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")]


async def delay_after(net: Network, answer: bytes, delays: list[float]) -> float:
    delays.clear()
    async with Answers(answer).serve(net) as url:
        connections = reconnect(net, url, backoff=WSBackoff(0.5, 1, 0.5, None), logger_name="delays")
        waiting = asyncio.ensure_future(connections.__anext__())
        while not delays:
            await asyncio.sleep(0)
        await connections.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
    return delays[0]


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_may_ask_for_patience(net: Network, code: int, delays: list[float]) -> None:
    async def test() -> None:
        for value, seconds in {"0": 0, "7": 7, "3600": 3600, "9" * 5000: 3600, "-7": 0, "7.5": 0, "soon": 0, "": 0}.items():
            assert await delay_after(net, status(code, f"Retry-After: {value}"), delays) == seconds + 0.5
        for date in http_dates(100):
            assert 90 < await delay_after(net, status(code, f"Retry-After: {date}"), delays) <= 100.5
        for date in http_dates(-100):
            assert await delay_after(net, status(code, f"Retry-After: {date}"), delays) == 0.5
        for date in http_dates(1e6):
            assert await delay_after(net, status(code, f"Retry-After: {date}"), delays) == 3600.5
        assert await delay_after(net, status(code, "Retry-After: Mon, 01 Jan 99999 00:00:00 GMT"), delays) == 0.5

    net.run(test())


# The log


@over_tcp_and_tls
def test_one_line_for_each_delay(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "picows")

    async def test() -> None:
        answers = Answers(b"\x1b[31mHello\r\n\r\n", status(503), ACCEPT)
        async with answers.serve(net) as url, reconnect(net, url.replace("//", "//alice:secret@")) as connections:
            for _ in range(2):
                transport, _ = await connections.__anext__()
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()

    net.run(test())
    assert {(record.name, record.levelno) for record in caplog.records} == {("picows.client", logging.INFO)}
    garbage, refused, ended = (record.getMessage() for record in caplog.records)
    for line in (garbage, refused, ended):
        assert re.fullmatch(r"127\.0\.0\.1:\d+: .*; next attempt in \d+\.\d\d s", line)
        assert line.isprintable()
        assert "secret" not in line
    assert "WSInvalidMessageError" in garbage
    assert "503" in refused
    assert ": the connection has ended;" in ended


def test_a_long_story_is_cut_short(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "picows")

    class Verbose(Exception):
        pass

    def factory() -> WSListener:
        if len(answers.requests) == 1:
            raise Verbose("x" * 10_000)
        return Recorder()

    answers = Answers(ACCEPT)

    async def test() -> None:
        async with answers.serve(net) as url:
            connections = reconnect(net, url, factory, retry=lambda error: True)
            transport, _ = await connections.__anext__()
            transport.disconnect(graceful=False)
            await connections.aclose()

    net.run(test())
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 700
