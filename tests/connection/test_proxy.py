"""Connecting through proxies: real ones, and scripted ones for what a proxy may do wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import re
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from python_socks import ProxyError

from picows import WSHandshakeError, WSInvalidStatusError, WSInvalidURL, WSMsgType, WSParsedURL
from tests.connection.networks import (
    Echo,
    Network,
    Recorder,
    all_at_once,
    cancel_at_every_step,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.proxies import (
    SCHEMES,
    USER_INFO,
    Redirector,
    be_silent,
    client_tls,
    open_sockets,
    running_proxy,
    scripted,
    sockets_closed_down_to,
)
from tests.ports import free_port

over_tls = pytest.mark.parametrize(
    "net", [network for network in over_every_network.args[1] if network.values[0].tls]
)
over_schemes = pytest.mark.parametrize("scheme", SCHEMES)


@contextlib.asynccontextmanager
async def echo_server(net: Network) -> AsyncIterator[str]:
    """Yields the URL of an echo server, in which it is called localhost."""
    # By the loop itself: aiofastnet's servers report clients that vanish to the loop as problems.
    async with net.serve(lambda request: Echo(), use_aiofastnet=False) as url:
        yield url.replace("127.0.0.1", "localhost")


async def check_echo(net: Network, url: str, **arguments: Any) -> None:
    tls = {"ssl_context": client_tls(), "proxy_ssl_context": client_tls()}
    client = await net.connect(Recorder, url, **{**tls, **arguments})
    message = b"through the tunnel" * 10_000
    client.transport.send(WSMsgType.BINARY, message)
    assert await client.payload() == message
    # The URL says it, not how the proxy is reached.
    assert client.transport.is_secure is net.tls
    await cut(client)


@over_every_network
@over_schemes
def test_echo(net: Network, scheme: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme) as proxy, echo_server(net) as url:
            await check_echo(net, url, proxy=proxy.url)
            # Who knows names resolves them: the proxy, but for SOCKS4.
            (host, _) = proxy.asked.pop()
            assert host == ("127.0.0.1" if scheme == "socks4" else "localhost")

    net.run(check())


@over_both_loops
def test_socks5h_is_socks5_whose_proxy_knows_the_names(net: Network) -> None:
    async def check() -> None:
        async with running_proxy("socks5h", auth=True) as proxy, echo_server(net) as url:
            await check_echo(net, url, proxy=proxy.url_for(USER_INFO))
            (host, _) = proxy.asked.pop()
            assert host == "localhost"
            with pytest.raises(ProxyError, match="socks5h proxy") as error:
                await check_echo(net, url, proxy=proxy.url)
            assert error.value.error_code == 255

    net.run(check())


@over_both_loops
@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ((b"\5\xff",), 255),
        ((b"\5\2", b"\1\1"), 255),
        ((b"\5\2", b"\1\5"), 255),
        ((b"\5\2", b"\1\0", b"\5\1\0"), 1),
        ((b"\5\0", b"\5\2\0"), 2),
        ((b"\5\2",), None),
        ((b"\5\2", b"\1"), None),
        ((b"\5\2", b"\5\5"), None),
        ((b"\5\2", b"\1\0"), None),
    ],
)
def test_the_code_of_a_socks5_refusal(net: Network, answers: tuple[bytes, ...], code: int | None) -> None:
    """255 is that of who is not let in, whatever byte says so."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        writer.write_eof()

    async def check() -> None:
        async with scripted(refuse) as port:
            with pytest.raises(ProxyError) as error:
                await check_echo(net, "ws://localhost/", proxy=f"socks5://{USER_INFO}@localhost:{port}")
            assert error.value.error_code == code

    net.run(check())


@over_every_network
def test_both_learn_of_a_graceful_end(net: Network) -> None:
    async def check(scheme: str) -> None:
        server = Echo()
        async with running_proxy(scheme) as proxy, net.serve(lambda request: server, use_aiofastnet=False) as url:
            client = await net.connect(
                Recorder, url, ssl_context=client_tls(), proxy=proxy.url, proxy_ssl_context=client_tls()
            )
            client.transport.send(WSMsgType.BINARY, b"through the tunnel")
            assert await client.payload() == b"through the tunnel"
            client.transport.disconnect()
            for listener in (client, server):
                await listener.transport.wait_disconnected()

    net.run(all_at_once(*map(check, SCHEMES)))


@over_both_loops
@over_schemes
def test_credentials(net: Network, scheme: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme, auth=True) as proxy, echo_server(net) as url:
            await check_echo(net, url, proxy=proxy.url_for(USER_INFO))

    net.run(check())


@over_both_loops
@pytest.mark.parametrize("user_info", ["", "bob:secret@"])
@over_schemes
def test_wrong_credentials(net: Network, scheme: str, user_info: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme, auth=True) as proxy, echo_server(net) as url:
            proxy_url = proxy.url.replace("://", f"://{user_info}")
            with pytest.raises(ProxyError, match=f"{scheme} proxy 127.0.0.1:{proxy.port}") as error:
                await check_echo(net, url, proxy=proxy_url)
            assert "secret" not in str(error.value)
            if scheme != "socks4":
                assert error.value.error_code == (255 if scheme == "socks5" else 401)

    net.run(check())


@over_both_loops
@over_schemes
def test_server_out_of_reach(net: Network, scheme: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme) as proxy:
            with pytest.raises(ProxyError):
                await check_echo(net, f"ws://127.0.0.1:{free_port()}/", proxy=proxy.url)

    net.run(check())


@over_every_network
@over_schemes
def test_proxy_out_of_reach(net: Network, scheme: str) -> None:
    async def check() -> None:
        proxy = f"{scheme}://127.0.0.1:{free_port()}"
        with pytest.raises(ConnectionRefusedError):
            await check_echo(net, "ws://localhost/", proxy=proxy)

    net.run(check())


@over_every_network
@over_schemes
def test_silent_proxy(net: Network, scheme: str) -> None:
    async def check() -> None:
        before = open_sockets()
        async with scripted(be_silent, tls=scheme == "https") as port:
            with pytest.raises(asyncio.TimeoutError):
                await check_echo(
                    net,
                    "ws://localhost/",
                    proxy=f"{scheme}://localhost:{port}",
                    websocket_handshake_timeout=0.05,
                )
        await sockets_closed_down_to(before)

    net.run(check())


@over_tcp_and_tls
@over_schemes
def test_silent_server(net: Network, scheme: str) -> None:
    async def check() -> None:
        before = open_sockets()
        async with running_proxy(scheme) as proxy, scripted(be_silent, tls=net.tls) as port:
            with pytest.raises(asyncio.TimeoutError):
                await check_echo(
                    net,
                    f"{'wss' if net.tls else 'ws'}://localhost:{port}",
                    proxy=proxy.url,
                    websocket_handshake_timeout=0.05,
                )
            await sockets_closed_down_to(before + 2)
        await sockets_closed_down_to(before)

    net.run(check())


@over_both_loops
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_credentials_that_are_not_ascii(net: Network, scheme: str) -> None:
    """They are sent as UTF-8, whose bytes are those of the URL."""
    requests: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async def check() -> None:
        async with scripted(refuse, tls=scheme == "https") as port:
            user_info = "j%C3%BCrgen:%D0%BF%F0%9F%94%91%C3%9F"
            with pytest.raises(ProxyError) as error:
                await check_echo(net, "ws://localhost/", proxy=f"{scheme}://{user_info}@localhost:{port}")
            assert error.value.error_code == 407

    net.run(check())
    (sent,) = re.findall(rb"\r\nProxy-Authorization: Basic (\S+)\r\n", requests[0])
    assert base64.b64decode(sent).decode() == "j\u00fcrgen:\u043f\U0001f511\u00df"


@over_every_network
@over_schemes
def test_a_proxy_that_resets_the_connection(net: Network, scheme: str) -> None:
    """What the system reported is raised as it is, and is no ProxyError."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def check() -> None:
        before = open_sockets()
        async with scripted(reset, tls=scheme == "https") as port:
            with pytest.raises(ConnectionResetError):
                await check_echo(net, "ws://localhost/", proxy=f"{scheme}://localhost:{port}")
        await sockets_closed_down_to(before)

    net.run(check())


@over_both_loops
@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", b""),
        ("http", b"220 mail.example.com ESMTP\r\n\r\n"),
        ("http", b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n" + 20_000 * b"X"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nHello there"),
        ("socks4", b""),
        ("socks4", b"\0"),
        ("socks4", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("socks4", b"\0\x5b\0\0\0\0\0\0"),
        ("socks4", b"\0\x5a\0\0\0\0\0\0more"),
        ("socks5", b""),
        ("socks5", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("socks5", b"\5\xff"),
        ("socks5", b"\5\0\5\1\0\1\0\0\0\0\0\0"),
        ("socks5", b"\5\0\5\0\0\1\0\0\0\0\0\0more"),
    ],
)
def test_bad_answer(net: Network, scheme: str, answer: bytes) -> None:
    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if len(answer) < 10:
            writer.write_eof()

    async def check() -> None:
        before = open_sockets()
        async with scripted(follow) as port:
            with pytest.raises(ProxyError, match=f"{scheme} proxy localhost:{port}"):
                await check_echo(net, "ws://localhost/", proxy=f"{scheme}://localhost:{port}")
        await sockets_closed_down_to(before)

    net.run(check())


@over_both_loops
@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", b"HTTP/1.0 200 Connection established\r\nVia: me\r\nDate: today\r\n\r\n"),
        ("http", b"HTTP/1.1 200\r\n\r\n"),
        ("socks4", b"\0\x5a\0\0\0\0\0\0"),
        ("socks5", b"\5\0\5\0\0\3\tlocalhost\0\0"),
        ("socks5", b"\5\0\5\0\0\4" + bytes(18)),
    ],
)
def test_answer_in_pieces(net: Network, scheme: str, answer: bytes) -> None:
    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await reader.read(1)
        for i in range(len(answer)):
            writer.write(answer[i : i + 1])
            await asyncio.sleep(0)
        await reader.readuntil(b"GET / HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async def check() -> None:
        async with scripted(follow) as port:
            with pytest.raises(WSInvalidStatusError, match="503"):
                await check_echo(net, "ws://localhost/", proxy=f"{scheme}://localhost:{port}")

    net.run(check())


@over_tls
@over_schemes
def test_server_of_another_name(net: Network, scheme: str) -> None:
    """Inside the tunnel it is the server's name that counts, whatever the proxy is called."""

    async def check() -> None:
        before = open_sockets()
        async with running_proxy(scheme) as proxy, echo_server(net) as url:
            arguments = {"proxy": proxy.url, "ssl_handshake_timeout": 10}
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
                await check_echo(net, url, server_hostname="other", **arguments)
            await sockets_closed_down_to(before + 2)
            await check_echo(net, url, server_hostname="127.0.0.1", **arguments)

    net.run(check())


@over_tls
@over_schemes
def test_server_leaves_in_the_tls_handshake(net: Network, scheme: str) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def check() -> None:
        # aiofastnet reports to the loop what it raises.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        before = open_sockets()
        async with running_proxy(scheme) as proxy, scripted(leave) as port:
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await check_echo(net, f"wss://localhost:{port}/", proxy=proxy.url)
        await sockets_closed_down_to(before)

    net.run(check())


@over_every_network
def test_https_proxy_of_another_name(net: Network) -> None:
    async def check() -> None:
        before = open_sockets()
        async with running_proxy("https") as proxy, echo_server(net) as url:
            arguments = {
                "proxy": "https://other",
                "socket_factory": lambda _: socket.create_connection(("127.0.0.1", proxy.port)),
            }
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
                await check_echo(net, url, server_hostname="localhost", **arguments)
            assert not proxy.asked
            await sockets_closed_down_to(before + 2)

    net.run(check())


@over_both_loops
def test_https_proxy_of_an_unknown_authority(net: Network) -> None:
    async def check() -> None:
        async with running_proxy("https") as proxy, echo_server(net) as url:
            with pytest.raises(ssl.SSLCertVerificationError):
                await check_echo(net, url, proxy=proxy.url, proxy_ssl_context=None)
            assert not proxy.asked

    net.run(check())


@over_tcp_and_tls
@over_schemes
def test_socket_factory_is_asked_for_the_proxy(net: Network, scheme: str) -> None:
    asked: list[WSParsedURL] = []

    async def make_socket(endpoint: WSParsedURL) -> socket.socket:
        asked.append(endpoint)
        return socket.socket(socket.AF_INET)

    async def check() -> None:
        async with running_proxy(scheme) as proxy, echo_server(net) as url:
            await check_echo(net, url, proxy=proxy.url, socket_factory=make_socket)
            assert [endpoint.url for endpoint in asked] == [proxy.url]
            assert (asked[0].host, asked[0].port) == ("127.0.0.1", proxy.port)
            assert len(proxy.asked) == 1

    net.run(check())


def test_proxy_on_a_unix_socket(net: Network, tmp_path: Path) -> None:
    """A proxy that listens on a path: the factory brings the connected socket."""

    def make_socket(endpoint: WSParsedURL) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "proxy"))
        return sock

    async def check() -> None:
        path = tmp_path / "proxy"
        async with running_proxy("socks5", path=path) as proxy, echo_server(net) as url:
            await check_echo(net, url, proxy="socks5://unused", socket_factory=make_socket)
            assert len(proxy.asked) == 1

    net.run(check())


@over_tcp_and_tls
def test_redirects_go_through_the_proxy(net: Network) -> None:
    async def check() -> None:
        async with running_proxy("http") as proxy, echo_server(net) as url:

            async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 307 Over there\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())

            async with scripted(redirect) as port:
                await check_echo(net, f"ws://localhost:{port}/", proxy=proxy.url)
            first, _ = proxy.asked
            assert first == ("localhost", port)

    net.run(check())


def test_a_redirect_to_where_the_proxy_cannot_lead(net: Network) -> None:
    """As all that goes wrong while redirects are followed, it is a WSHandshakeError."""

    async def check() -> None:
        before = open_sockets()
        async with running_proxy("socks4") as proxy, Redirector("ws://[::1]:1/x").serve() as url:
            with pytest.raises(WSHandshakeError, match=r"redirect leads there, .*SOCKS4 cannot connect to an IPv6") as caught:
                await check_echo(net, url, proxy=proxy.url)
            assert isinstance(caught.value, WSInvalidURL)
            assert caught.value.url == "ws://[::1]:1/x"
            assert caught.value.response is not None
            assert caught.value.response.headers["Location"] == "ws://[::1]:1/x"
            assert caught.value.raw_body is not None
        await sockets_closed_down_to(before)

    net.run(check())


def test_a_redirect_by_the_proxy_is_not_followed(net: Network) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Log in\r\nLocation: ws://localhost/\r\n\r\n")

    async def check() -> None:
        async with scripted(redirect) as port:
            with pytest.raises(ProxyError, match="302"):
                await check_echo(net, "ws://localhost/", proxy=f"http://localhost:{port}")

    net.run(check())


# Before Python 3.11 asyncio's TLS transport warns when it is lost before its handshake is done.
@pytest.mark.filterwarnings(
    "ignore:.*_SSLProtocolTransport.__del__:pytest.PytestUnraisableExceptionWarning"
)
@over_every_network
@over_schemes
def test_cancelled_at_any_step(net: Network, scheme: str) -> None:
    """However far the connection has come, a cancelled ws_connect leaves nothing open."""

    async def check() -> None:
        before = open_sockets()
        async with running_proxy(scheme) as proxy, echo_server(net) as url:
            url = url.replace("localhost", "127.0.0.1")
            options = {"proxy": proxy.url, "proxy_ssl_context": client_tls()}
            await cancel_at_every_step(lambda: net.connect(Recorder, url, **options), before + 2)

    net.run(check())


@over_tcp_and_tls
def test_a_proxy_that_leaves_with_its_answer(net: Network) -> None:
    """Over TLS both are read at once, so that the end is known when the answer is."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async def test() -> None:
        async with scripted(leave, tls=net.tls) as port:
            scheme = "https" if net.tls else "http"
            with pytest.raises((ProxyError, ConnectionError, WSHandshakeError)) as raised:
                await net.connect(
                    Recorder, "ws://example.com/", proxy=f"{scheme}://127.0.0.1:{port}", proxy_ssl_context=client_tls()
                )
            if net.tls and importlib.util.find_spec("aiofastnet"):  # asyncio's own TLS may tell of the end a turn later
                assert str(raised.value) == f"https proxy 127.0.0.1:{port} to example.com:80: the connection was closed"

    net.run(test())


def test_a_proxy_that_is_lost_as_the_time_for_tls_behind_it_is_over(net: Network) -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.readexactly(1)  # the handshake has begun
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the loop has been told of the reset
        time.sleep(0.15)  # and before the client is, its time is over

    async def test() -> None:
        async with scripted(vanish, tls=True) as port:
            tls = {"ssl_context": client_tls(), "proxy_ssl_context": client_tls(), "ssl_handshake_timeout": 0.1}
            with pytest.raises(ConnectionError):
                await net.connect(Recorder, "wss://example.com/", proxy=f"https://127.0.0.1:{port}", **tls)

    net.run(test())
