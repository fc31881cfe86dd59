"""`connect`: how it is called, what it refuses, redirects, proxies and reconnecting, beside that of `websockets`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import itertools
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from http.client import responses
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from picows.websockets import Headers, InvalidURI, ProxyError
from tests.connection.networks import Network, over_both_loops
from tests.connection.peers import upgrade_response
from tests.connection.proxies import Redirector, be_silent, client_tls, running_proxy, scripted, server_tls
from tests.websockets.scenarios import CLIENTS, echo, ours, their_server, theirs

PROXY_VARIABLES = [f"{name}_proxy" for name in ("http", "https", "ws", "wss", "socks", "all", "no")]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["connect", "unix_connect", "process_exception"])
def test_the_arguments_and_their_defaults(name: str) -> None:
    parameters = [inspect.signature(getattr(client, name)).parameters.values() for client in (ours, theirs)]
    # What we call ourselves, and what a default of ours is a function of ours.
    own = {"user_agent_header", "process_exception", "reconnect_delays"}
    assert [[(p.name, p.kind, None if p.name in own else p.default) for p in side] for side in parameters[:1]] == [
        [(p.name, p.kind, None if p.name in own else p.default) for p in side] for side in parameters[1:]
    ]


async def failure(client: Any, uri: Any, **options: Any) -> str:
    try:
        async with client.connect(uri, **options):
            return "connected"
    except Exception as exc:
        return type(exc).__name__


# What is wrong is found before the network is touched, and told by the same exception.
SAME = {
    "extensions": [1, "x", ["x"]],
    "subprotocols": ["chat", 1, ["a b"], [1], [""]],
    "compression": ["gzip", 1, True, ""],
    "additional_headers": [1, "x", [("a",)], [("a", "b", "c")], {"a": "b\r\nc"}],
    "origin": ["a\r\nb"],
    "user_agent_header": ["a\r\nb"],
    "proxy": ["x", "ftp://x", False, b"http://x", "http://", "http://u@h:1", "http://h:1/path", "socks9://h:1", ""],
    "ssl": ["x", True, False, 1],
    "server_hostname": ["x"],
    "host": [1],
    "local_addr": [1],
    "nonsense": [1],
}
# Here `websockets` fails by accident, when it is connected already, or not at all.
BETTER = {
    "open_timeout": [("x", "TypeError"), (-1, "TimeoutError"), (0, "TimeoutError")],
    "additional_headers": [({1: "x"}, "TypeError"), ({"a b": "x"}, "ValueError"), ({"Sec-WebSocket-Key": "x"}, "ValueError")],
    "proxy": [(1, "InvalidProxy"), ("http://x:y", "InvalidProxy")],
    "ping_interval": [("x", "TypeError"), (-1, "ValueError")],
    "ping_timeout": [("x", "TypeError"), (-1, "ValueError"), (0, "ValueError")],
    "close_timeout": [("x", "TypeError"), (-1, "ValueError")],
    "max_size": [("x", "ValueError"), ((1,), "ValueError"), (1.5, "TypeError"), (-1, "ValueError"), (("a", 1), "TypeError")],
    "max_queue": [("x", "ValueError"), ((1,), "ValueError"), (1.5, "TypeError"), (-1, "ValueError"), ((1, 2), "ValueError")],
    "write_limit": [("x", "ValueError"), ((1,), "ValueError"), (None, "TypeError"), (-1, "ValueError"), ((1, 2), "ValueError")],
    "create_connection": [(1, "TypeError")],
    "logger": [("x", "TypeError"), (1, "TypeError")],
    "sock": [(1, "TypeError")],
    "port": [("x", "TypeError")],
    "proxy_ssl": [("x", "TypeError"), (False, "TypeError")],
    "proxy_server_hostname": [(1, "TypeError")],
    "proxy_ssl_handshake_timeout": [("x", "TypeError"), (0, "ValueError")],
    "proxy_ssl_shutdown_timeout": [("x", "TypeError"), (-1, "ValueError")],
    "extensions": [([type("Other", (), {"name": "x-other"})()], "NotImplementedError")],
}


@contextlib.asynccontextmanager
async def counting() -> Any:
    connected = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(1)
        writer.close()

    async with scripted(handle) as port:
        yield f"ws://127.0.0.1:{port}/", connected


@pytest.mark.parametrize("name", SAME)
def test_wrong_arguments(name: str, net: Network) -> None:
    async def test() -> None:
        async with counting() as (uri, connected):
            options = [{"proxy": None, "open_timeout": 5, name: value} for value in SAME[name]]
            told = [await failure(ours, uri, **option) for option in options]
            assert not connected
            assert told == [await failure(theirs, uri, **option) for option in options]

    net.run(test())


@pytest.mark.parametrize("name", BETTER)
def test_wrong_arguments_that_websockets_does_not_look_at(name: str, net: Network) -> None:
    async def test() -> None:
        async with counting() as (uri, connected):
            for value, told in BETTER[name]:
                assert await failure(ours, uri, **{"proxy": None, name: value}) == told, value
                assert not connected

    net.run(test())


@over_both_loops
def test_no_cancellation_is_lost(net: Network) -> None:
    """In whatever turn of the loop it comes, that of success too."""

    async def test() -> None:
        async with their_server(net, echo) as uri:
            for turns in itertools.count():

                async def connected() -> Any:
                    return await ours.connect(uri, proxy=None)

                task = asyncio.ensure_future(connected())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not task.cancel():
                    await (await task).close()
                    break
                with pytest.raises(asyncio.CancelledError):
                    await task

    net.run(test())


@pytest.mark.parametrize(
    "uri",
    [1, None, b"ws://h", "http://x", "ws://", "ws:///x", "ws://h:x", "ws://h/#f", "", "ws://u@h", "ws://[::1", "ws://h:70000"],
)
def test_wrong_uris_are_told_at_once(uri: Any) -> None:
    told = []
    for client in (ours, theirs):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            client.connect(uri)
        told.append(raised.type.__name__)
    assert told[0] == told[1]


def upgraded(more: bytes) -> Any:
    return lambda request: upgrade_response(request)[:-2] + more + b"\r\n"


ANSWERS = {
    "none": b"",
    "half": b"HTTP/1.1 101 Swi",
    "garbage": b"\x01\x02\x03garbage\r\n\r\n",
    "another protocol": b"HTTP/2 200 OK\r\n\r\n",
    "refused": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-A: b\r\n\r\nnope",
    "refused until the end": b"HTTP/1.1 403 Forbidden\r\n\r\nnope",
    "unknown status": b"HTTP/1.1 520 Weird\r\nContent-Length: 0\r\n\r\n",
    "no upgrade": lambda request: upgrade_response(request).replace(b"Upgrade: websocket\r\n", b""),
    "another upgrade": lambda request: upgrade_response(request).replace(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n"),
    "connection": lambda request: upgrade_response(request).replace(b"Connection: Upgrade\r\n", b"Connection: close\r\n"),
    "no key": lambda request: upgrade_response(request).replace(b"Sec-WebSocket-Accept", b"X"),
    "wrong key": lambda request: upgrade_response(request).replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
    "two keys": upgraded(b"Sec-WebSocket-Accept: x\r\n"),
    "extension": upgraded(b"Sec-WebSocket-Extensions: foo\r\n"),
    "wrong parameter": upgraded(b"Sec-WebSocket-Extensions: permessage-deflate; x=1\r\n"),
    "subprotocol": upgraded(b"Sec-WebSocket-Protocol: other\r\n"),
    "two subprotocols": upgraded(b"Sec-WebSocket-Protocol: chat, b\r\n"),
    "redirect without a place": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "redirect to another scheme": b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n",
    "no redirect": b"HTTP/1.1 304 Not Modified\r\nLocation: /x\r\n\r\n",
    **{
        f"{status} for ever": f"HTTP/1.1 {status} {responses[status]}\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".encode()
        for status in (300, 301, 302, 303, 305, 307, 308, 408, 429, 500, 501, 502, 503, 504, 505)
    },
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_wrong_answers(answer: str, net: Network) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        told = ANSWERS[answer]
        writer.write(told if isinstance(told, bytes) else told(request))
        writer.close()

    async def test() -> None:
        told = []
        async with scripted(handle) as port:
            for client in (ours, theirs):
                with pytest.raises(Exception) as raised:  # noqa: PT011
                    await client.connect(f"ws://127.0.0.1:{port}/", subprotocols=["chat", "b"])
                response = getattr(raised.value, "response", None)
                shown = response and (response.status_code, response.reason_phrase, response.body, dict(response.headers))
                again = client.process_exception(raised.value) is None
                told.append((raised.type.__name__, str(raised.value) if response else "", shown, again))
        assert told[0] == told[1]

    net.run(test())


@pytest.mark.parametrize("uri", ["ws://a b/", "ws://a:0/", "ws://a/\0"])
def test_a_uri_that_cannot_be_sent_is_told(net: Network, uri: str) -> None:
    async def test() -> None:
        with pytest.raises(InvalidURI) as raised:
            await ours.connect(uri, proxy=None)
        assert raised.value.uri == uri

    net.run(test())


def test_a_time_limit_of_the_system_is_told_as_it_is() -> None:
    """It takes minutes; the loop says here what the kernel would."""

    class Loop(asyncio.SelectorEventLoop):
        async def sock_connect(self, *_: Any) -> None:
            raise TimeoutError(errno.ETIMEDOUT, "it takes minutes")

    loop = Loop()
    with pytest.raises(TimeoutError, match="it takes minutes") as raised:
        loop.run_until_complete(ours.connect("ws://127.0.0.1:1/", proxy=None)._connect_in_time())
    assert raised.value.errno == errno.ETIMEDOUT
    loop.close()


@over_both_loops
@pytest.mark.parametrize("over_tls", [False, True])
def test_a_silent_server_is_timed_out(net: Network, over_tls: bool) -> None:
    async def test() -> None:
        async with scripted(be_silent) as port:
            for client in (ours, theirs):
                with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                    await client.connect(f"ws{'s' * over_tls}://127.0.0.1:{port}/", open_timeout=0.05)

    net.run(test())


def test_credentials_do_not_survive_a_redirect_to_another_origin(net: Network) -> None:
    async def test() -> None:
        elsewhere = Redirector("/", "ftp://end")
        async with elsewhere.serve() as other:
            first = Redirector()
            async with first.serve() as uri:
                first._answers = iter([f"{uri}/again", f"{other}/there"])
                with pytest.raises(Exception, match="ftp"):
                    await ours.connect(
                        f"{uri.replace('://', '://user:password@')}/start",
                        additional_headers={"Cookie": "secret", "X-Kept": "1"},
                        origin="https://example.org",
                    )
        assert [first.header("Authorization", i) for i in (0, 1)] == ["Basic dXNlcjpwYXNzd29yZA=="] * 2
        assert first.header("Cookie", 1) == "secret"
        for i in (0, 1):
            assert elsewhere.header("Authorization", i) is None
            assert elsewhere.header("Cookie", i) is None
            assert elsewhere.header("X-Kept", i) == "1"
            assert elsewhere.header("Origin", i) == "https://example.org"

    net.run(test())


@pytest.mark.parametrize("option", ["host", "port", "sock", "path"])
def test_a_chosen_destination_stays_the_only_one(net: Network, option: str, tmp_path: Path) -> None:
    async def test() -> None:
        redirector = Redirector("ws://example.org/")
        if option == "path":
            path = str(tmp_path / "socket")

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await redirector._answer(reader, writer)
                writer.close()

            server = await asyncio.start_unix_server(answer, path)
            with pytest.raises(ValueError, match=r"cross-origin redirect to ws://example.org/ with a Unix socket"):
                await ours.unix_connect(path)
            server.close()
            return
        async with redirector.serve() as uri:
            port = int(uri.rpartition(":")[2])
            sock = socket.create_connection(("127.0.0.1", port)) if option == "sock" else None
            chosen = {"host": "127.0.0.1", "port": port, "sock": sock}
            with pytest.raises(ValueError, match=r"cross-origin redirect to ws://example.org/ with"):
                await ours.connect(f"{uri}/", **{option: chosen[option]})

    net.run(test())


def test_a_redirect_from_tls_to_none(net: Network) -> None:
    async def test() -> None:
        redirector = Redirector("ws://example.org/", tls=True)
        async with redirector.serve() as uri:
            with pytest.raises(Exception, match=r"non-secure URI ws://example.org/") as raised:
                await ours.connect(uri, ssl=client_tls())
            assert raised.type.__name__ == "SecurityError"

    net.run(test())


def test_another_host_than_that_of_the_uri(net: Network) -> None:
    """The certificate is checked for the host of the URI, and the Host header names it."""

    async def test() -> None:
        async with their_server(Network(tls=True), echo) as uri:
            port = int(uri.partition("://")[2].partition("/")[0].rpartition(":")[2])
            async with ours.connect("wss://localhost:1/x", host="127.0.0.1", port=port, ssl=client_tls()) as ws:
                assert ws.request.headers["Host"] == "localhost:1"
            with pytest.raises(ssl.SSLCertVerificationError):
                await ours.connect("wss://example.org/x", host="127.0.0.1", port=port, ssl=client_tls())

    net.run(test())


@over_both_loops
def test_a_unix_socket(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        from websockets.asyncio.server import unix_serve

        path = tmp_path / "socket"
        for tls in (False, True):
            serving = unix_serve(echo, str(path), ssl=server_tls() if tls else None)
            async with serving, ours.unix_connect(path, **({"ssl": client_tls()} if tls else {})) as ws:
                assert ws.request.headers["Host"] == "localhost"
                await ws.send("x")
                assert await ws.recv() == "x"
            path.unlink(missing_ok=True)
        async with unix_serve(echo, str(path)):
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(str(path))
            async with ours.unix_connect(sock=connected) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
        for arguments in ({}, {"path": path, "sock": socket.socket()}):
            with pytest.raises(ValueError, match="path and sock"):
                await ours.unix_connect(**arguments)
            if arguments:
                arguments["sock"].close()

    net.run(test())


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
def test_proxies(net: Network, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with their_server(net, echo) as uri, running_proxy(scheme) as proxy:
            url = f"{scheme}://127.0.0.1:{proxy.port}"
            for given in (url, url.replace("socks5", "socks5h").replace("socks4", "socks4a")):
                async with ours.connect(uri, proxy=given) as ws:
                    await ws.send("x")
                    assert await ws.recv() == "x"
            monkeypatch.setenv("ws_proxy", url)
            async with ours.connect(uri):
                assert len(proxy.asked) == 3
            async with ours.connect(uri, proxy=None):
                assert len(proxy.asked) == 3
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            async with ours.connect(uri):
                assert len(proxy.asked) == 3

    net.run(test())


def test_tls_with_a_proxy_has_arguments_of_its_own(net: Network) -> None:
    async def test() -> None:
        async with running_proxy("https") as proxy, their_server(net, echo) as uri:
            shutdown = {"ssl_shutdown_timeout": 5, "proxy_ssl_shutdown_timeout": 5} if sys.version_info >= (3, 11) else {}
            tls = {"proxy": proxy.url, "proxy_ssl": client_tls(), **shutdown}
            async with ours.connect(uri, proxy_server_hostname="localhost", **tls) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)self.signed"):
                await ours.connect(uri, **{**tls, "proxy_ssl": True})
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
                await ours.connect(uri, proxy_server_hostname="elsewhere.test", **tls)
            async with scripted(be_silent) as port:
                # One waits for the proxy, and one for the server behind it; the other limit is longer than connecting may take.
                limits = {"ssl_handshake_timeout": 60, "proxy_ssl_handshake_timeout": 0.05}
                with pytest.raises(ConnectionError):
                    await ours.connect(uri, **{**tls, **limits, "proxy": f"https://127.0.0.1:{port}"})
                limits = {"ssl_handshake_timeout": 0.05, "proxy_ssl_handshake_timeout": 60}
                with pytest.raises(ConnectionError):
                    await ours.connect(f"wss://127.0.0.1:{port}/", ssl=client_tls(), **tls, **limits)

    net.run(test())


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
def test_a_proxy_without_tls_takes_no_arguments_about_it(net: Network, scheme: str) -> None:
    given = {"ssl": client_tls(), "server_hostname": "a", "ssl_handshake_timeout": 1, "ssl_shutdown_timeout": 1}

    async def test() -> None:
        async with counting() as (uri, connected):
            for name, value in given.items():
                with pytest.raises(ValueError, match=f"proxy_{name} is only meaningful with an https:// proxy"):
                    await ours.connect("ws://example.test/", proxy=uri.replace("ws", scheme), **{f"proxy_{name}": value})
            assert not connected

    net.run(test())


def test_a_server_that_the_proxy_cannot_name(net: Network) -> None:
    """Whether it was asked for or a redirect leads there."""

    async def test() -> None:
        async with running_proxy("socks4") as proxy, Redirector("ws://[::1]:1/").serve() as redirect:
            for uri in ("ws://[::1]:1/", redirect):
                with pytest.raises(ProxyError, match="SOCKS4 cannot connect to an IPv6 address"):
                    await ours.connect(uri, proxy=proxy.url)

    net.run(test())


VARIABLES: list[dict[str, str]] = [
    {},
    {"http": "http://a:1"},
    {"https": "http://b:1"},
    {"socks": "http://c:1"},
    {"socks": "socks5://c:1"},
    {"ws": "http://d:1", "https": "http://b:1"},
    {"wss": "http://e:1", "http": "http://a:1"},
    {"http": "http://a:1", "https": "http://b:1"},
    {"http": "http://a:1", "socks": "socks5://c:1", "https": "http://b:1"},
    {"all": "http://z:1"},
    {"http": "http://a:1", "no": "h"},
    {"ws": "http://a:1", "no": "*"},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_the_proxy_of_the_system(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.proxy import get_proxy
    from websockets.uri import parse_uri

    from picows.url import parse_url
    from picows.websockets._proxy import system_proxy

    for name, value in variables.items():
        monkeypatch.setenv(f"{name}_proxy", value)
    for uri in ("ws://h/", "wss://h/", "ws://localhost/"):
        assert system_proxy(parse_url(uri)) == get_proxy(parse_uri(uri))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 599 X\r\n\r\n", b"junk\r\n\r\n"])
def test_a_proxy_that_refuses(net: Network, answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def test() -> None:
        async with scripted(handle) as port:
            told = []
            for client in (ours, theirs):
                with pytest.raises(Exception, match="proxy") as raised:
                    await client.connect("ws://example.test/", proxy=f"http://u:p@127.0.0.1:{port}")
                response = getattr(raised.value, "response", None)
                told.append((raised.type.__name__, response and response.status_code))
            assert told[0] == told[1]

    net.run(test())


def test_a_socks_proxy_that_refuses(net: Network) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\5\xff")
        writer.close()

    async def test() -> None:
        async with scripted(handle) as port:
            for client in (ours, theirs):
                with pytest.raises(Exception, match="failed to connect to SOCKS proxy") as raised:
                    await client.connect("ws://example.test/", proxy=f"socks5://127.0.0.1:{port}")
                assert raised.type.__name__ == "ProxyError"

    net.run(test())


def test_a_reset_in_place_of_an_answer(net: Network) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def test() -> None:
        told = []
        async with scripted(handle) as port:
            for client in (ours, theirs):
                with pytest.raises(Exception, match="did not receive a valid HTTP response") as raised:
                    await client.connect(f"ws://127.0.0.1:{port}/", proxy=None)
                told.append((raised.type.__name__, client.process_exception(raised.value)))
        assert told[0] == told[1] == ("InvalidMessage", None)

    net.run(test())


@pytest.mark.parametrize("error", [OSError(), ConnectionRefusedError(), TimeoutError(), EOFError(), ValueError()], ids=repr)
def test_what_is_tried_again(error: Exception) -> None:
    assert ours.process_exception(error) is theirs.process_exception(error)


@pytest.mark.parametrize("value", [None, False])
def test_tls_by_the_uri_and_none_by_the_arguments(net: Network, value: Any) -> None:
    async def test() -> None:
        # The package takes False for none given, and then complains of a name that is not.
        for client in (ours, theirs) if value is None else (ours,):
            with pytest.raises(ValueError, match=f"ssl={value} is incompatible with a wss:// URI"):
                await client.connect("wss://127.0.0.1:1/", proxy=None, ssl=value)

    net.run(test())


def test_a_unix_socket_that_is_not_there(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError):
            await ours.unix_connect(tmp_path / "socket", "ws://somewhere/")

    net.run(test())


def test_headers_of_the_own_type_and_a_queue_without_a_bound(net: Network) -> None:
    async def test() -> None:
        async with their_server(net, echo) as uri:
            headers = Headers([("X-A", "1"), ("X-A", "2")])
            async with ours.connect(uri, additional_headers=headers, max_queue=None) as ws:
                assert ws.request.headers.get_all("X-A") == ["1", "2"]
                for number in range(100):
                    await ws.send(str(number))
                assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]

    net.run(test())


def test_delays_of_reconnecting() -> None:
    from websockets.client import backoff

    # The first one is random.
    told = [[f"{delay:.3f}" for delay in itertools.islice(delays(), 1, 12)] for delays in (ours.backoff, backoff)]
    assert told[0] == told[1]
    assert 0 <= next(ours.backoff(2)) <= 2


def test_delays_by_the_environment() -> None:
    variables = {"INITIAL_DELAY": "0.5", "MIN_DELAY": "1", "MAX_DELAY": "8", "FACTOR": "2"}
    environment = {**os.environ, **{f"WEBSOCKETS_BACKOFF_{name}": value for name, value in variables.items()}}
    code = "from picows.websockets.asyncio.client import backoff as b; d = b(); print(next(d) <= 0.5, *(next(d) for _ in range(5)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "1.0", "2.0", "4.0", "8.0", "8.0"]


def test_reconnecting(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        attempts = itertools.count()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            attempt = next(attempts)
            if attempt in (1, 2, 4):
                writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            elif attempt == 5:
                writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(upgrade_response(request))
                await reader.read()
            writer.close()

        delays: list[Iterator[float]] = []

        def reconnect_delays() -> Iterator[float]:
            delays.append(iter([0.001, 0.002, 9]))
            return delays[-1]

        async with scripted(handle) as port:
            connecting = ours.connect(
                f"ws://127.0.0.1:{port}/", compression=None, reconnect_delays=reconnect_delays, close_timeout=0.05
            )
            connections: list[Any] = []
            with pytest.raises(Exception, match="HTTP 403"):
                await into(connections, connecting)
            assert [ws.state.name for ws in connections] == ["CLOSED", "CLOSED"]
            assert [next(left) for left in delays] == [9, 0.002]
        lines = [record.getMessage() for record in caplog.records if record.name == "websockets.client"]
        assert len(lines) == 3
        assert "connect failed; reconnecting in 0.0 seconds" in lines[0]
        assert "HTTP 503" in lines[0]

    net.run(test())


async def into(connections: list[Any], connecting: Any) -> None:
    async for ws in connecting:
        connections.append(ws)


def test_process_exception_decides(net: Network) -> None:
    async def test() -> None:
        for client in CLIENTS.values():
            with pytest.raises(KeyError) as raised:
                await into([], client.connect("ws://127.0.0.1:1/", process_exception=lambda exc: KeyError("mine")))
            assert isinstance(raised.value.__cause__, ConnectionRefusedError)

    net.run(test())


def test_compression(net: Network) -> None:
    class Factory:
        name = "permessage-deflate"
        server_no_context_takeover = True
        client_no_context_takeover = False
        server_max_window_bits = 10
        client_max_window_bits = True
        compress_settings = MappingProxyType({"memLevel": 4})

    async def test() -> None:
        async with their_server(net, echo) as uri:
            offered = []
            factory = [Factory()]
            second = [*factory, type("Second", (), {"name": "permessage-deflate", "client_no_context_takeover": True})()]
            choices = ({}, {"compression": None}, {"extensions": factory}, {"extensions": factory, "compression": None})
            for options in (*choices, {"extensions": second}):
                async with ours.connect(uri, **options) as ws:
                    offered.append(ws.request.headers.get("Sec-WebSocket-Extensions"))
                    await ws.send("x" * 10_000)
                    assert await ws.recv() == "x" * 10_000
            async with theirs.connect(uri) as ws:
                assert ws.request.headers["Sec-WebSocket-Extensions"] == offered[0]
            assert offered[1] is None
            assert offered[2] == offered[3] == offered[4]
            assert "server_no_context_takeover" in offered[2]
            assert "server_max_window_bits=10" in offered[2]

    net.run(test())


def test_headers(net: Network) -> None:
    async def test() -> None:
        async with their_server(net, echo) as uri:
            async with ours.connect(
                uri.replace("://", "://user:pass%20word@"), origin="https://a.org", user_agent_header="me", subprotocols=[]
            ) as ws:
                headers = ws.request.headers
                assert (headers["Origin"], headers["User-Agent"]) == ("https://a.org", "me")
                assert headers["Authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
            async with ours.connect(uri, user_agent_header=None, additional_headers={"Host": "other", "X-Number": 1}) as ws:
                assert "User-Agent" not in ws.request.headers
                assert (ws.request.headers["Host"], ws.request.headers["X-Number"]) == ("other", "1")

    net.run(test())
