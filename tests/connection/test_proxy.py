"""Connecting through proxies: real ones, and scripted ones for what a proxy may do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from python_socks import ProxyError

from picows import (
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    ws_connect,
    ws_create_server,
)
from tests.connection.proxies import (
    SCHEMES,
    USER_INFO,
    client_tls,
    open_sockets,
    running_proxy,
    server_tls,
    sockets_closed_down_to,
)

Run = Callable[[Coroutine[Any, Any, None]], None]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

TLS = {"ssl_context": client_tls(), "proxy_ssl_context": client_tls()}


@pytest.fixture(params=[False, True], ids=["", "aiofastnet"])
def fast(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("aiofastnet")
    return bool(request.param)


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Client(WSListener):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received.put_nowait(frame.get_payload_as_bytes())


@contextlib.asynccontextmanager
async def echo_server(secure: bool = False) -> AsyncIterator[str]:
    """Yields the URL of an echo server."""
    context = server_tls() if secure else None
    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", 0, ssl=context)
    yield f"{'wss' if secure else 'ws'}://localhost:{server.sockets[0].getsockname()[1]}/"
    server.close()


@contextlib.asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yields the port of a server that follows a script, then waits for the other side's end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def check_echo(url: str, **arguments: Any) -> WSTransport:
    transport, client = await ws_connect(Client, url, **{**TLS, **arguments})
    assert isinstance(client, Client)
    message = b"through the tunnel" * 10_000
    transport.send(WSMsgType.BINARY, message)
    assert await client.received.get() == message
    transport.disconnect()
    await transport.wait_disconnected()
    return transport


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_echo(run: Run, scheme: str, secure: bool, fast: bool) -> None:
    async def check() -> None:
        async with running_proxy(scheme) as proxy, echo_server(secure) as url:
            await check_echo(url, proxy=proxy.url, use_aiofastnet=fast)
            # Who knows names resolves them: the proxy, but for SOCKS4.
            (host, _) = proxy.asked.pop()
            assert host == ("127.0.0.1" if scheme == "socks4" else "localhost")

    run(check())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_credentials(run: Run, scheme: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme, auth=True) as proxy, echo_server() as url:
            await check_echo(url, proxy=proxy.url_for(USER_INFO))

    run(check())


@pytest.mark.parametrize("user_info", ["", "bob:secret@"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_credentials(run: Run, scheme: str, user_info: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme, auth=True) as proxy, echo_server() as url:
            proxy_url = proxy.url.replace("://", f"://{user_info}")
            with pytest.raises(ProxyError, match=f"{scheme} proxy 127.0.0.1:{proxy.port}") as error:
                await check_echo(url, proxy=proxy_url)
            assert "secret" not in str(error.value)
            if scheme.startswith("http"):
                assert error.value.error_code == 401

    run(check())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_server_out_of_reach(run: Run, scheme: str) -> None:
    async def check() -> None:
        async with running_proxy(scheme) as proxy:
            with pytest.raises(ProxyError):
                await check_echo(f"ws://127.0.0.1:{unused_port()}/", proxy=proxy.url)

    run(check())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_proxy_out_of_reach(run: Run, scheme: str, fast: bool) -> None:
    async def check() -> None:
        proxy = f"{scheme}://127.0.0.1:{unused_port()}"
        with pytest.raises(ConnectionRefusedError):
            await check_echo("ws://localhost/", proxy=proxy, use_aiofastnet=fast)

    run(check())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_silent_proxy(run: Run, scheme: str, fast: bool) -> None:
    async def check() -> None:
        before = open_sockets()
        tls = server_tls() if scheme == "https" else None
        async with scripted(be_silent, tls) as port:
            with pytest.raises(asyncio.TimeoutError):
                await check_echo(
                    "ws://localhost/",
                    proxy=f"{scheme}://localhost:{port}",
                    websocket_handshake_timeout=0.05,
                    use_aiofastnet=fast,
                )
        await sockets_closed_down_to(before)

    run(check())


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_silent_server(run: Run, scheme: str, secure: bool) -> None:
    async def check() -> None:
        before = open_sockets()
        tls = server_tls() if secure else None
        async with running_proxy(scheme) as proxy, scripted(be_silent, tls) as port:
            with pytest.raises(asyncio.TimeoutError):
                await check_echo(
                    f"{'wss' if secure else 'ws'}://localhost:{port}",
                    proxy=proxy.url,
                    websocket_handshake_timeout=0.05,
                )
            await sockets_closed_down_to(before + 2)
        await sockets_closed_down_to(before)

    run(check())


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
def test_bad_answer(run: Run, scheme: str, answer: bytes) -> None:
    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if len(answer) < 10:
            writer.write_eof()

    async def check() -> None:
        before = open_sockets()
        async with scripted(follow) as port:
            with pytest.raises(ProxyError, match=f"{scheme} proxy localhost:{port}"):
                await check_echo("ws://localhost/", proxy=f"{scheme}://localhost:{port}")
        await sockets_closed_down_to(before)

    run(check())


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
def test_answer_in_pieces(run: Run, scheme: str, answer: bytes) -> None:
    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await reader.read(1)
        for i in range(len(answer)):
            writer.write(answer[i : i + 1])
            await asyncio.sleep(0)
        assert b"GET / HTTP/1.1\r\n" in await reader.readuntil(
            b"\r\n\r\n" if scheme != "http" else b"GET / HTTP/1.1\r\n"
        )
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async def check() -> None:
        async with scripted(follow) as port:
            with pytest.raises(WSInvalidStatusError, match="503"):
                await check_echo("ws://localhost/", proxy=f"{scheme}://localhost:{port}")

    run(check())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_server_of_another_name(run: Run, scheme: str, fast: bool) -> None:
    """Inside the tunnel it is the server's name that counts, whatever the proxy is called."""

    async def check() -> None:
        before = open_sockets()
        async with running_proxy(scheme) as proxy, echo_server(secure=True) as url:
            arguments = {"proxy": proxy.url, "use_aiofastnet": fast, "ssl_handshake_timeout": 10}
            with pytest.raises(ssl.SSLCertVerificationError, match="(?i)hostname mismatch"):
                await check_echo(url, server_hostname="other", **arguments)
            await sockets_closed_down_to(before + 2)
            await check_echo(url, server_hostname="127.0.0.1", **arguments)

    run(check())


def test_https_proxy_of_another_name(run: Run, fast: bool) -> None:
    async def check() -> None:
        before = open_sockets()
        async with running_proxy("https") as proxy, echo_server() as url:
            arguments = {
                "proxy": "https://other",
                "socket_factory": lambda _: socket.create_connection(("127.0.0.1", proxy.port)),
                "use_aiofastnet": fast,
            }
            with pytest.raises(ssl.SSLCertVerificationError, match="(?i)hostname mismatch"):
                await check_echo(url, server_hostname="localhost", **arguments)
            assert not proxy.asked
            await sockets_closed_down_to(before + 2)

    run(check())


def test_https_proxy_of_an_unknown_authority(run: Run) -> None:
    async def check() -> None:
        async with running_proxy("https") as proxy, echo_server() as url:
            with pytest.raises(ssl.SSLCertVerificationError):
                await check_echo(url, proxy=proxy.url, proxy_ssl_context=None)
            assert not proxy.asked

    run(check())


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_socket_factory_is_asked_for_the_proxy(run: Run, scheme: str, secure: bool) -> None:
    asked: list[WSParsedURL] = []

    async def make_socket(endpoint: WSParsedURL) -> socket.socket:
        asked.append(endpoint)
        return socket.socket(socket.AF_INET)

    async def check() -> None:
        async with running_proxy(scheme) as proxy, echo_server(secure) as url:
            await check_echo(url, proxy=proxy.url, socket_factory=make_socket)
            (endpoint,) = asked
            assert (endpoint.scheme, endpoint.host, endpoint.port) == (
                scheme,
                "127.0.0.1",
                proxy.port,
            )
            assert len(proxy.asked) == 1

    run(check())


def test_proxy_on_a_unix_socket(run: Run, tmp_path: Path) -> None:
    """A proxy that listens on a path: the factory brings the connected socket."""

    def make_socket(endpoint: WSParsedURL) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "proxy"))
        return sock

    async def check() -> None:
        path = tmp_path / "proxy"
        async with running_proxy("socks5", path=path) as proxy, echo_server(secure=True) as url:
            await check_echo(url, proxy="socks5://unused", socket_factory=make_socket)
            assert len(proxy.asked) == 1

    run(check())


def test_redirects_go_through_the_proxy(run: Run) -> None:
    async def check() -> None:
        async with running_proxy("http") as proxy, echo_server(secure=True) as url:

            async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 307 Over there\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())

            async with scripted(redirect) as port:
                await check_echo(f"ws://localhost:{port}/", proxy=proxy.url)
            first, _ = proxy.asked
            assert first == ("localhost", port)

    run(check())


def test_a_redirect_by_the_proxy_is_not_followed(run: Run) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Log in\r\nLocation: ws://localhost/\r\n\r\n")

    async def check() -> None:
        async with scripted(redirect) as port:
            with pytest.raises(ProxyError, match="302"):
                await check_echo("ws://localhost/", proxy=f"http://localhost:{port}")

    run(check())


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cancelled_at_any_step(run: Run, scheme: str, secure: bool, fast: bool) -> None:
    """However far the connection has come, a cancelled ws_connect leaves nothing open."""

    async def check() -> None:
        before = open_sockets()
        async with running_proxy(scheme) as proxy, echo_server(secure) as url:
            url = url.replace("localhost", "127.0.0.1")
            arguments = {**TLS, "proxy": proxy.url, "use_aiofastnet": fast}
            for steps in itertools.count():
                task = asyncio.ensure_future(ws_connect(Client, url, **arguments))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if not task.cancel():
                    break
                with pytest.raises(asyncio.CancelledError):
                    await task
                await sockets_closed_down_to(before + 2)
            transport, _ = await task
            transport.disconnect()
            await transport.wait_disconnected()

    run(check())
