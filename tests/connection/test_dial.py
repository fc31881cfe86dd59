"""How ws_connect gets to its server: sockets of the user's, TLS, redirects, failures on the way."""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import pickle
import socket
import ssl
import struct
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Callable

import pytest

from picows import (
    PICOWS_DEBUG_LL,
    WSHandshakeError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
    ws_create_server,
)
from tests.connection.networks import (
    Echo,
    Network,
    Recorder,
    cancel_at_every_step,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import upgrade_response
from tests.connection.proxies import (
    Redirector,
    be_silent,
    client_tls,
    new_server_tls,
    open_sockets,
    scripted,
    server_tls,
    sockets_closed_down_to,
)
from tests.ports import free_port

over_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix domain sockets")


def accept(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def check_echo(net: Network, url: str, **options: Any) -> Any:
    client = await net.connect(Recorder, url, **options)
    client.transport.send(WSMsgType.TEXT, "hello")
    assert await client.payload() == b"hello"
    await cut(client)
    return client


# Sockets of the user's own


def unconnected(endpoint: WSParsedURL) -> socket.socket:
    return socket.socket()


def connected(endpoint: WSParsedURL) -> socket.socket:
    return socket.create_connection((endpoint.host, endpoint.port))


async def connected_later(endpoint: WSParsedURL) -> socket.socket:
    await asyncio.sleep(0)
    return connected(endpoint)


async def none_after_all(endpoint: WSParsedURL) -> None:
    await asyncio.sleep(0)


FACTORIES = [unconnected, connected, connected_later, none_after_all, lambda endpoint: None]


@over_every_network
@pytest.mark.parametrize("make", FACTORIES)
def test_socket_factory(net: Network, make: Callable[..., Any]) -> None:
    asked: list[WSParsedURL] = []

    def factory(endpoint: WSParsedURL) -> Any:
        asked.append(endpoint)
        return make(endpoint)

    async def test() -> None:
        async with net.serve(accept) as url:
            # What is about making a socket does not disturb one that is made.
            await check_echo(net, url, socket_factory=factory, family=socket.AF_INET)
            assert [endpoint.url for endpoint in asked] == [url]

    net.run(test())


@over_both_loops
def test_socket_factory_chooses_the_socket(net: Network) -> None:
    made: list[tuple[str, int]] = []

    def factory(endpoint: WSParsedURL) -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        made.append(sock.getsockname())
        return sock

    async def test() -> None:
        async with net.serve(accept) as url:
            client = await net.connect(Recorder, url, socket_factory=factory)
            underlying = client.transport.underlying_transport
            assert [underlying.get_extra_info("sockname")] == made
            await cut(client)

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda endpoint: 5, TypeError),
        (lambda endpoint: ("localhost", 80), TypeError),
        (lambda endpoint: socket.socket(type=socket.SOCK_DGRAM), ValueError),
        (
            lambda endpoint: ssl.create_default_context().wrap_socket(
                socket.socket(), server_hostname="x"
            ),
            TypeError,
        ),
        pytest.param(lambda endpoint: socket.socket(socket.AF_UNIX), ValueError, marks=over_unix),
    ],
    ids=["int", "address", "datagram", "tls", "unconnected unix"],
)
def test_wrong_socket(net: Network, make: Callable[..., Any], error: type[Exception]) -> None:
    made: list[Any] = []

    def factory(endpoint: WSParsedURL) -> Any:
        made.append(make(endpoint))
        return made[0]

    async def test() -> None:
        with pytest.raises(error, match="socket_factory"):
            await ws_connect(Recorder, "ws://localhost:9/", socket_factory=factory)
        if isinstance(made[0], socket.socket):
            assert made[0].fileno() == -1

    net.run(test())


@over_both_loops
def test_socket_factory_fails(net: Network) -> None:
    def factory(endpoint: WSParsedURL) -> socket.socket:
        raise LookupError("no route")

    async def test() -> None:
        with pytest.raises(LookupError, match="no route"):
            await ws_connect(Recorder, "ws://localhost:9/", socket_factory=factory)

    net.run(test())


@over_every_network
@over_unix
def test_unix_sockets(net: Network, tmp_path: Path) -> None:
    """On both sides; the URL still says whom the request and the certificate are for."""
    path = str(tmp_path / "socket")

    def connect(endpoint: WSParsedURL) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

    hosts: list[str] = []

    def remember(request: WSUpgradeRequest) -> WSListener:
        hosts.append(request.headers["Host"])
        return Echo()

    async def test() -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        tls = server_tls() if net.tls else None
        server = await ws_create_server(
            remember, sock=listening, ssl=tls, backlog=5, use_aiofastnet=net.fast
        )
        url = f"{'wss' if net.tls else 'ws'}://localhost/"
        await check_echo(net, url, socket_factory=connect)
        assert hosts == ["localhost"]
        server.close()

    net.run(test())


@over_tcp_and_tls
def test_a_listening_socket(net: Network) -> None:
    async def test() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = await ws_create_server(
            accept, sock=listening, ssl=server_tls() if net.tls else None
        )
        await check_echo(net, f"{'wss' if net.tls else 'ws'}://127.0.0.1:{port}/")
        server.close()

    net.run(test())


@over_both_loops
def test_several_hosts(net: Network) -> None:
    async def test() -> None:
        port = free_port()
        server = await ws_create_server(accept, ["127.0.0.1", "localhost"], port)
        await check_echo(net, f"ws://localhost:{port}/")
        server.close()

    net.run(test())


@over_both_loops
def test_any_free_port(net: Network) -> None:
    async def test() -> None:
        server = await ws_create_server(accept, "127.0.0.1", start_serving=False)
        assert not server.is_serving()
        await server.start_serving()
        await check_echo(net, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        server.close()

    net.run(test())


# What the event loop's own arguments do


@over_both_loops
def test_local_address(net: Network) -> None:
    async def test() -> None:
        port = free_port()
        async with net.serve(accept) as url:
            client = await net.connect(Recorder, url, local_addr=("127.0.0.1", port))
            underlying = client.transport.underlying_transport
            assert underlying.get_extra_info("sockname") == ("127.0.0.1", port)
            await cut(client)

    net.run(test())


@over_every_network
def test_who_makes_the_connection(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as (client, server):
            for listener in (client, server):
                kind = type(listener.transport.underlying_transport)
                assert kind.__module__.startswith("aiofastnet") is net.fast

    net.run(test())


def test_aiofastnet_is_used_where_it_gains(net: Network) -> None:
    pytest.importorskip("aiofastnet")

    async def test() -> None:
        async with net.pair(
            client_options={"use_aiofastnet": None}, server_options={"use_aiofastnet": None}
        ) as pair:
            for listener in pair:
                kind = type(listener.transport.underlying_transport)
                assert kind.__module__.startswith("aiofastnet") is (net.tls or net.loop == "asyncio")

    net.run(test())


over_tls = pytest.mark.parametrize(
    "net", [network for network in over_every_network.args[1] if network.values[0].tls]
)


@over_tls
def test_the_default_context_verifies(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        async with net.serve(accept, use_aiofastnet=False) as url:
            with pytest.raises(ssl.SSLCertVerificationError):
                await net.connect(Recorder, url, ssl_context=None)
            await sockets_closed_down_to(before + 1)

    net.run(test())


@over_tls
@pytest.mark.parametrize("make", [None, connected], ids=["", "socket_factory"])
def test_the_server_has_to_be_the_one_of_the_url(net: Network, make: Any) -> None:
    async def test() -> None:
        async with net.serve(accept, use_aiofastnet=False) as url:
            options = {"socket_factory": make, "ssl_handshake_timeout": 10}
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
                await net.connect(Recorder, url, server_hostname="other", **options)
            await check_echo(net, url, server_hostname="localhost", **options)

    net.run(test())


@over_both_loops
def test_tls_arguments_do_not_disturb_plain_connections(net: Network) -> None:
    async def test() -> None:
        async with net.serve(accept) as url:
            await check_echo(net, url, ssl_context=client_tls(), ssl_handshake_timeout=10)

    net.run(test())


# Failures leave nothing open


@over_every_network
def test_refused(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        scheme = "wss" if net.tls else "ws"
        for make in (None, unconnected):
            url = f"{scheme}://127.0.0.1:{free_port()}/"
            with pytest.raises(ConnectionRefusedError):
                await net.connect(Recorder, url, socket_factory=make)
        await sockets_closed_down_to(before)

    net.run(test())


@over_every_network
def test_a_silent_server(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        scheme = "wss" if net.tls else "ws"
        async with scripted(be_silent, net.tls) as port:
            url = f"{scheme}://127.0.0.1:{port}/"
            with pytest.raises(asyncio.TimeoutError):
                await net.connect(Recorder, url, websocket_handshake_timeout=0.05)
        await sockets_closed_down_to(before)

    net.run(test())


@over_every_network
@pytest.mark.parametrize("linger", [None, 0], ids=["closed", "reset"])
def test_a_server_that_hangs_up(net: Network, linger: int | None) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if linger is not None:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
        writer.transport.abort()

    async def test() -> None:
        before = open_sockets()
        scheme = "wss" if net.tls else "ws"
        async with scripted(hang_up, net.tls) as port:
            with pytest.raises((WSInvalidMessageError, OSError)):
                await net.connect(Recorder, f"{scheme}://127.0.0.1:{port}/")
        await sockets_closed_down_to(before)

    net.run(test())


@over_every_network
def test_no_limit_on_the_handshake(net: Network) -> None:
    async def test() -> None:
        async with net.serve(accept, websocket_handshake_timeout=None) as url:
            await check_echo(net, url, websocket_handshake_timeout=None)

    net.run(test())


@over_every_network
def test_cancelled_at_any_step(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        async with net.serve(accept, use_aiofastnet=False) as url:
            await cancel_at_every_step(lambda: net.connect(Recorder, url), before + 1)

    net.run(test())


@over_both_loops
def test_cancelled_while_a_socket_connects(net: Network) -> None:
    made: list[socket.socket] = []

    def factory(endpoint: WSParsedURL) -> socket.socket:
        made.append(socket.socket())
        return made[-1]

    async def test() -> None:
        before = open_sockets()
        async with net.serve(accept) as url:
            await cancel_at_every_step(lambda: net.connect(Recorder, url, socket_factory=factory), before + 1)
            for sock in made:
                while sock.fileno() != -1:
                    await asyncio.sleep(0)

    net.run(test())


@over_both_loops
def test_cancelled_when_the_answer_is_quicker_than_the_loop(net: Network) -> None:
    """uvloop ends a transport without a word when it is cancelled between connection_made and its own end of connecting."""
    connecting: asyncio.Future[Any]
    answered = threading.Event()

    class Cancelling(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            connecting.cancel()

    class Waiting(logging.Handler):
        """The answer comes while it is logged that the request was sent, so that the loop reads it in its next turn."""

        def emit(self, record: logging.LogRecord) -> None:
            answered.wait(1)
            time.sleep(0.001)

    def answer(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            sock.sendall(upgrade_response(sock.recv(4096)))
            answered.set()
            while sock.recv(4096):
                pass

    async def test() -> None:
        nonlocal connecting
        client = Cancelling()
        logger = logging.Logger("picows.test", PICOWS_DEBUG_LL)
        logger.addHandler(Waiting())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            answering = asyncio.get_running_loop().run_in_executor(None, answer, listening)
            url = f"ws://127.0.0.1:{listening.getsockname()[1]}/"
            connecting = asyncio.ensure_future(net.connect(lambda: client, url, logger_name=logger))
            await client.disconnected.wait()
            assert client.calls == ["connected", "disconnected"]
            assert connecting.cancelled()
            await answering

    net.run(test())


# Client factories


class Nothing(WSListener):
    pass


def test_what_a_client_factory_is_called_with(net: Network) -> None:
    calls: list[tuple[Any, ...]] = []

    def remember(*arguments: Any) -> WSListener:
        calls.append(arguments)
        return Nothing()

    class TwoArguments(WSListener):
        def __init__(self, request: WSUpgradeRequest, response: WSUpgradeResponse) -> None:
            calls.append((request, response))

    class NoArguments(WSListener):
        def __init__(self) -> None:
            calls.append(())

    class Method:
        def make(self, request: WSUpgradeRequest, response: WSUpgradeResponse) -> WSListener:
            return remember(request, response)

    without = [Nothing, WSListener, NoArguments, lambda: remember()]
    with_both = [
        TwoArguments,
        remember,
        Method().make,
        lambda request, response=None: remember(request, response),
        functools.partial(lambda name, request, response: remember(request, response), "name"),
    ]

    async def test() -> None:
        async with net.serve(accept) as url:
            for factory in without:
                calls.clear()
                transport, listener = await ws_connect(factory, url)
                assert isinstance(listener, WSListener)
                assert not any(calls)
                transport.disconnect()
            for factory in with_both:
                calls.clear()
                transport, listener = await ws_connect(factory, url)
                assert calls == [(transport.request, transport.response)]
                transport.disconnect()
                await transport.wait_disconnected()

    net.run(test())


@over_every_network
@pytest.mark.parametrize(
    ("result", "error"),
    [(LookupError("no listener today"), LookupError), (5, TypeError), (None, TypeError)],
)
def test_a_client_factory_fails(net: Network, result: Any, error: type[Exception]) -> None:
    def factory() -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    async def test() -> None:
        before = open_sockets()
        async with net.serve(accept, use_aiofastnet=False) as url:
            with pytest.raises(error):
                await net.connect(factory, url)
            await sockets_closed_down_to(before + 1)

    net.run(test())


def test_nobody_else_keeps_the_listener(net: Network) -> None:
    async def test() -> None:
        async with net.serve(accept) as url:
            transport, listener = await ws_connect(Nothing, url)
            transport.disconnect()
            await transport.wait_disconnected()
            gone = weakref.ref(listener)
            del listener
            assert gone() is None

    net.run(test())


@over_both_loops
def test_gone_before_ws_connect_returns(net: Network) -> None:
    """A listener may disconnect at once; ws_connect still gives back what there was."""

    class Leaver(Recorder):
        def on_ws_connected(self, transport: Any) -> None:
            super().on_ws_connected(transport)
            transport.disconnect(graceful=False)

    async def test() -> None:
        async with net.serve(accept) as url:
            transport, listener = await ws_connect(Leaver, url)
            assert isinstance(listener, Leaver)
            assert transport is listener.transport
            await transport.wait_disconnected()
            assert listener.calls == ["connected", "disconnected"]

    net.run(test())


# Redirects


@over_tcp_and_tls
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(net: Network, status: int) -> None:
    async def test() -> None:
        before = open_sockets()
        async with net.serve(accept) as target:
            redirector = Redirector(target, tls=net.tls, status=status)
            async with redirector.serve() as url:
                await check_echo(net, url)
        await sockets_closed_down_to(before)

    net.run(test())


@pytest.mark.parametrize("status", [300, 304, 305, 200, 404, 503])
def test_other_statuses_are_no_redirects(net: Network, status: int) -> None:
    async def test() -> None:
        async with Redirector("/", status=status).serve() as url:
            with pytest.raises(WSInvalidStatusError, match=str(status)) as error:
                await net.connect(Recorder, url)
            assert error.value.response is not None
            assert error.value.response.status == status

    net.run(test())


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/elsewhere?a=b", "/elsewhere?a=b"),
        ("elsewhere", "/a/elsewhere"),
        ("../elsewhere#part", "/elsewhere"),
        ("?x", "/a/b?x"),
        ("//localhost:{port}/x", "/x"),
        ("http://localhost:{port}/x", "/x"),
        ("WS://LOCALHOST:{port}/x", "/x"),
    ],
)
def test_location(net: Network, location: str, path: str) -> None:
    async def test() -> None:
        paths: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            paths.append(request.split()[1])
            port = writer.get_extra_info("sockname")[1]
            target = location.format(port=port)
            status = b"302 Elsewhere" if len(paths) == 1 else b"503 Enough"
            head = b"HTTP/1.1 %b\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
            writer.write(head % (status, target.encode()))

        async with scripted(answer) as port:
            with pytest.raises(WSInvalidStatusError, match="503"):
                await net.connect(Recorder, f"ws://localhost:{port}/a/b?c")
        assert paths == [b"/a/b?c", path.encode()]

    net.run(test())


def test_too_many_redirects(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        redirector = Redirector(*["/again"] * 4)
        async with redirector.serve() as url:
            with pytest.raises(WSHandshakeError, match="at most 3 redirects") as error:
                await net.connect(Recorder, url, max_redirects=3)
        assert len(redirector.requests) == 4
        assert error.value.response is not None
        assert error.value.response.headers["Location"] == "/again"
        await sockets_closed_down_to(before)

    net.run(test())


def test_as_many_redirects_as_allowed(net: Network) -> None:
    async def test() -> None:
        async with net.serve(accept) as target:
            redirector = Redirector("/1", "/2", target)
            async with redirector.serve() as url:
                await check_echo(net, url, max_redirects=3)

    net.run(test())


def test_redirects_disabled(net: Network) -> None:
    async def test() -> None:
        redirector = Redirector("/again")
        async with redirector.serve() as url:
            with pytest.raises(WSInvalidStatusError, match="302"):
                await net.connect(Recorder, url, max_redirects=0)
        assert len(redirector.requests) == 1

    net.run(test())


def test_redirect_without_location(net: Network) -> None:
    async def test() -> None:
        async with Redirector(b"").serve() as url:
            with pytest.raises(WSHandshakeError, match="Location"):
                await net.connect(Recorder, url)

    net.run(test())


@pytest.mark.parametrize(
    "location",
    ["ftp://localhost/", "ws://:80/", "/a b", "ws://localhost:99999/", "http://[::1", "//[", "ws://[v1.x]/"],
)
def test_redirect_to_nowhere(net: Network, location: str) -> None:
    async def test() -> None:
        before = open_sockets()
        async with Redirector(location).serve() as url:
            with pytest.raises(WSInvalidURL) as caught:
                await net.connect(Recorder, url)
            # As all that goes wrong while redirects are followed.
            assert isinstance(caught.value, WSHandshakeError)
            assert caught.value.response is not None
            assert caught.value.response.headers["Location"] == location
            assert caught.value.raw_header is not None
            again = pickle.loads(pickle.dumps(caught.value))
            assert (str(again), again.url, again.msg) == (str(caught.value), caught.value.url, caught.value.msg)
        await sockets_closed_down_to(before)

    net.run(test())


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_redirect_out_of_tls(scheme: str) -> None:
    net = Network(tls=True)

    async def test() -> None:
        async with Network().serve(accept) as target:
            redirector = Redirector(target.replace("ws", scheme), tls=True)
            async with redirector.serve() as url:
                with pytest.raises(WSHandshakeError, match="wss to ws"):
                    await net.connect(Recorder, url)

    net.run(test())


@pytest.mark.parametrize("scheme", ["wss", "https"])
def test_redirect_into_tls(scheme: str) -> None:
    net = Network(tls=True)

    async def test() -> None:
        async with net.serve(accept) as target:
            redirector = Redirector(target.replace("wss", scheme))
            async with redirector.serve() as url:
                await check_echo(net, url)

    net.run(test())


SECRETS = {
    "Authorization": "Bearer secret",
    "Cookie": "session=secret",
    "Proxy-Authorization": "Basic secret",
    "X-Kind": "harmless",
}


def test_secrets_stay_with_their_origin(net: Network) -> None:
    async def test() -> None:
        last = Redirector(b"", b"", status=503)
        async with last.serve() as target:
            first = Redirector("/same", target)
            async with first.serve() as url:
                with pytest.raises(WSInvalidStatusError, match="503"):
                    await net.connect(
                        Recorder, url, extra_headers={**SECRETS, "Host": "example.com"}
                    )
        for name, value in SECRETS.items():
            assert first.header(name, 0) == first.header(name, 1) == value
        assert first.header("Host", 0) == first.header("Host", 1) == "example.com"
        for name in ("Authorization", "Cookie", "Proxy-Authorization"):
            assert last.header(name) is None
        assert last.header("X-Kind") == "harmless"
        assert last.header("Host") == target.replace("ws://", "")

    net.run(test())


def test_credentials_of_the_url_stay_with_their_origin(net: Network) -> None:
    async def test() -> None:
        last = Redirector(b"", status=503)
        async with last.serve() as target:
            same = Redirector("/same")
            async with same.serve() as url:
                same._answers = iter(["/same", url + "/absolute", target])
                with pytest.raises(WSInvalidStatusError, match="503"):
                    await net.connect(Recorder, url.replace("ws://", "ws://user:pass%20word@"))
        expected = "Basic " + base64.b64encode(b"user:pass word").decode()
        assert [same.header("Authorization", i) for i in range(3)] == [expected] * 3
        assert last.header("Authorization") is None

    net.run(test())


def test_server_hostname_stays_with_its_origin() -> None:
    net = Network(tls=True)
    asked: list[str | None] = []

    async def test() -> None:
        context = new_server_tls()
        context.sni_callback = lambda tls, name, context: asked.append(name)
        async with net.serve(accept, ssl=context) as target:
            redirector = Redirector(target.replace("127.0.0.1", "localhost"), tls=True)
            async with redirector.serve() as url:
                await check_echo(net, url, server_hostname="127.0.0.1")
        assert asked == ["localhost"]

    net.run(test())


@over_both_loops
def test_each_hop_asks_the_socket_factory(net: Network) -> None:
    asked: list[str] = []

    def factory(endpoint: WSParsedURL) -> None:
        asked.append(endpoint.url)

    async def test() -> None:
        async with net.serve(accept) as target, Redirector(target).serve() as url:
            await check_echo(net, url, socket_factory=factory)
            assert asked == [url, target]

    net.run(test())
