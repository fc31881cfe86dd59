"""The opening handshake over real sockets: what each side is told, hostile peers, time-outs. Its rules in detail are
tested in tests/upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picows import (
    WSError,
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
    ws_create_server,
)
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    all_at_once,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import (
    PING,
    PONG,
    REQUEST,
    ROLES,
    TEXT,
    Peer,
    encode,
    raw_client,
    serve_streams,
    stream,
    upgrade_response,
)


def request(*, without: str = "", version: str = "HTTP/1.1", target: str = "/", **headers: str) -> bytes:
    """The usual request with some headers replaced, one left out, or others added."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"GET {target} {version}", *(f"{name}: {value}" for name, value in fields.items() if name != without)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# -- what both sides are told --


@over_every_network
def test_both_sides_know_request_and_response(net: Network) -> None:
    async def test() -> None:
        given: list[Any] = []

        def factory(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            assert request.headers["x-from-client"] == "é"
            response = WSUpgradeResponse.create_101_response({"X-From-Server": "ü"})
            given.append(Told())
            return WSUpgradeResponseWithListener(response, given[0])

        class Told(Recorder):
            def __init__(self, *handshake: Any) -> None:
                super().__init__()
                self.handshake = handshake

            def on_ws_connected(self, transport: WSTransport) -> None:
                super().on_ws_connected(transport)
                self.at_connection = (transport.request, transport.response)

        def client_factory(request: WSUpgradeRequest, response: WSUpgradeResponse) -> Told:
            return Told(request, response)

        async with net.serve(factory) as url:
            client = await net.connect(client_factory, url + "path?query=1", extra_headers={"X-From-Client": "é"})
            server = given[0]
            for listener in (client, server):
                transport = listener.transport
                assert listener.at_connection == (transport.request, transport.response)
                assert (transport.request.method, transport.request.path) == (b"GET", b"/path?query=1")
                assert transport.request.version == transport.response.version == b"HTTP/1.1"
                assert transport.request.headers["X-From-Client"] == "é"
                assert transport.response.status is http.HTTPStatus.SWITCHING_PROTOCOLS
                assert transport.response.headers["x-from-server"] == "ü"
                assert transport.response.headers["upgrade"].lower() == "websocket"
                assert transport.response.body is None
                assert transport.is_secure is net.tls
                assert transport.is_client_side is (listener is client)
            assert client.transport.request.headers == server.transport.request.headers
            assert client.transport.response.headers == server.transport.response.headers
            assert client.handshake == (client.transport.request, client.transport.response)
            await cut(client, server)

    net.run(test())


@over_tcp_and_tls
def test_the_transport_and_the_listener(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url:
            options: dict[str, Any] = {"use_aiofastnet": False}
            if net.tls:
                from tests.connection.proxies import client_tls

                options["ssl_context"] = client_tls()
            transport, listener = await ws_connect(Recorder, url, **options)
            assert isinstance(listener, Recorder)
            assert listener.transport is transport
            assert transport.underlying_transport.get_extra_info("peername")[0] == "127.0.0.1"
            sock = transport.underlying_transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert (transport.underlying_transport.get_extra_info("ssl_object") is not None) is net.tls
            await cut(listener)

    net.run(test())


# -- hostile and simple HTTP clients --


async def answer_of(net: Network, data: bytes, url: str) -> bytes:
    """Everything a server says to a client that sends `data` and then waits."""
    async with stream(net, url) as peer:
        peer.write(data)
        return await peer.reader.read()


MANY_HEADERS = "\r\n".join(f"X-{i}: {i}" for i in range(200))

REFUSED = {
    "no HTTP": (b"\x16\x03\x01 junk\r\n\r\n", 400),
    "HTTP/1.2": (request(version="HTTP/1.2"), 505),
    "HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "POST": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 405),
    "no host": (request(without="Host"), 400),
    "two hosts": (REQUEST.replace(b"Host: localhost", b"Host: localhost\r\nHost: other"), 400),
    "no key": (request(without="Sec-WebSocket-Key"), 400),
    "short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "two keys": (REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), 400),
    "old version": (request(Sec_WebSocket_Version="8"), 426),
    "no version": (request(without="Sec-WebSocket-Version"), None),
    "body": (request(Content_Length="5") + b"hello", 400),
    "chunked": (request(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400),
    "folded header": (REQUEST.replace(b"Upgrade: websocket", b"X: a\r\n b\r\nUpgrade: websocket"), 400),
    "space before the colon": (REQUEST.replace(b"Upgrade: websocket", b"X : a\r\nUpgrade: websocket"), 400),
    "control byte": (request(X="a\x00b"), 400),
    "bare line feed": (request(X="a\nY: b"), None),
    "long head": (request(X="a" * 20_000), 431),
    "many headers": (REQUEST.replace(b"\r\n\r\n", b"\r\n" + MANY_HEADERS.encode() + b"\r\n\r\n"), 431),
    "endless head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000, 431),
    "long target": (request(target="/" + "a" * 20_000), 414),
    "endless target": (b"GET /" + b"a" * 100_000, 414),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests(net: Network, case: str) -> None:
    """The answer arrives whole, even though we stopped reading, and the factory is not bothered."""
    data, status = REFUSED[case]

    async def test() -> None:
        asked = []
        async with net.serve(asked.append) as url:
            answer = await answer_of(net, data, url)
            head, _, body = answer.partition(b"\r\n\r\n")
            lines = head.decode("ascii").split("\r\n")
            assert lines[0].startswith("HTTP/1.1 ")
            if status is None:
                assert int(lines[0].split()[1]) in (400, 405, 426, 505)
            else:
                assert int(lines[0].split()[1]) == status
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            assert "close" in headers["connection"].lower()
            assert int(headers["content-length"]) == len(body)
            if int(lines[0].split()[1]) == 426:
                assert headers["sec-websocket-version"] == "13"
            assert asked == []

    net.run(test())


@over_every_network
def test_a_refused_request_with_much_behind_it(net: Network) -> None:
    """What the client goes on sending does not destroy the answer on its way."""

    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url, stream(net, url) as peer:
            peer.write(request(Sec_WebSocket_Version="8"))

            async def send() -> None:
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):
                        peer.write(bytes(100_000))
                        await peer.writer.drain()

            sending = asyncio.ensure_future(send())
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 426 ")
            sending.cancel()
            await asyncio.wait([sending])
            peer.writer.transport.abort()

    net.run(test())


@over_every_network
def test_health_checks_and_other_answers(net: Network) -> None:
    """A factory answers any well-formed GET on the same port."""

    def factory(request: WSUpgradeRequest) -> Any:
        if request.path == b"/health":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"fine", {"X-A": "b"}), None)
        if request.path == b"/moved":
            return WSUpgradeResponseWithListener(
                WSUpgradeResponse.create_redirect_response(http.HTTPStatus.FOUND, "/there"), None
            )
        if request.path == b"/forbidden":
            response = WSUpgradeResponse.create_error_response(http.HTTPStatus.FORBIDDEN, b"no")
            return WSUpgradeResponseWithListener(response, None)
        return Echo() if request.path == b"/" else None

    async def test() -> None:
        plain = b"GET %s HTTP/1.1\r\nHost: a\r\nUser-Agent: check\r\n\r\n"
        async with net.serve(factory) as url:
            for path, status, body in (
                (b"/health", b"200 OK", b"fine"),
                (b"/forbidden", b"403 Forbidden", b"no"),
                (b"/moved", b"302 Found", None),
                (b"/missing", b"404 Not Found", None),
                (b"/", b"426 Upgrade Required", None),
            ):
                for head in (plain % path, request(target=path.decode())):
                    if (path, head[:5]) == (b"/", b"GET /") and b"Upgrade: websocket" in head:
                        continue  # that one is accepted
                    answer = await answer_of(net, head, url)
                    assert answer.startswith(b"HTTP/1.1 " + status)
                    assert b"connection: " in answer.lower()
                    assert b"close" in answer.lower()
                    if body is not None:
                        assert answer.endswith(b"\r\n\r\n" + body)
            with pytest.raises(WSInvalidStatusError) as caught:
                await net.connect(Recorder, url + "forbidden")
            assert caught.value.response is not None
            assert caught.value.response.status is http.HTTPStatus.FORBIDDEN
            assert caught.value.raw_body == b"no"
            # It is still a websocket server.
            client = await net.connect(Recorder, url)
            client.transport.send(WSMsgType.TEXT, b"hello")
            assert await client.payload() == b"hello"
            await cut(client)

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("outcome", ["raises", "returns nonsense", "returns a class", "bad header"])
def test_a_factory_that_fails(net: Network, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    def factory(request: WSUpgradeRequest) -> Any:
        if outcome == "raises":
            raise LookupError("secret of the server")
        if outcome == "bad header":
            response = WSUpgradeResponse.create_101_response({"X-A": "b"})
            response.headers["X-A"] = "injected\r\nX-B: c"
            return WSUpgradeResponseWithListener(response, WSListener())
        return "secret nonsense" if outcome == "returns nonsense" else WSListener

    async def test() -> None:
        async with net.serve(factory) as url:
            answer = await answer_of(net, REQUEST, url)
            assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"secret" not in answer
            assert b"X-B" not in answer
            with pytest.raises(WSInvalidStatusError):
                await net.connect(Recorder, url)

    net.run(test())
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(record.exc_info for record in errors)


@over_tcp_and_tls
def test_a_handshake_that_drips_is_cut(net: Network) -> None:
    """Each byte does not start the time anew."""

    async def drip(peer: Peer, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            for byte in data[:-1]:
                peer.write(bytes([byte]))
                await peer.writer.drain()
                await asyncio.sleep(0.02)

    async def late(url: str, data: bytes) -> None:
        began = time.monotonic()
        async with stream(net, url) as peer:
            dripping = asyncio.ensure_future(drip(peer, data))
            await peer.lost()
            assert time.monotonic() - began >= 0.15
            dripping.cancel()
            await asyncio.wait([dripping])

    async def in_time(url: str) -> None:
        client = await net.connect(Recorder, url)
        await asyncio.sleep(0.25)
        client.transport.send_ping(b"still here")
        assert await client.frames.get() == Received(PONG, b"still here")
        await cut(client)

    async def test() -> None:
        async with net.serve(lambda request: Echo(), websocket_handshake_timeout=0.2) as url:
            await all_at_once(*(late(url, data) for data in (b"", REQUEST[:50], REQUEST[:-1])), in_time(url))

    net.run(test())


@over_tcp_and_tls
def test_a_request_byte_by_byte(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url, stream(net, url) as peer:
            for byte in REQUEST:
                peer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            peer.send(TEXT, b"hello")
            assert await peer.receive() == Received(TEXT, b"hello")

    net.run(test())


@over_every_network
def test_frames_right_behind_the_request(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url, stream(net, url) as peer:
            words = [b"%d" % i for i in range(500)]
            peer.write(REQUEST + b"".join(encode(TEXT, word, mask=True) for word in words))
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert [(await peer.receive()).payload for _ in words] == words

    net.run(test())


@over_tcp_and_tls
def test_a_fault_right_behind_the_handshake(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url, stream(net, url) as peer:
            peer.write(REQUEST + encode(TEXT, b"good", mask=True) + b"\x83")
            await peer.reader.readuntil(b"\r\n\r\n")
            good, close = await peer.receive_all()
            assert good.payload == b"good"
            assert close.payload[:2] == b"\x03\xea"

    net.run(test())


# -- hostile servers --


@contextlib.asynccontextmanager
async def answering(net: Network, *answer: bytes, then: str = "wait") -> AsyncIterator[str]:
    """A server that reads the request and answers in so many pieces; ACCEPT in them becomes the right value."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            accept = upgrade_response(head).split(b"Accept: ")[1].split(b"\r\n")[0]
            for piece in answer:
                writer.write(piece.replace(b"ACCEPT", accept))
                await asyncio.sleep(0)
            if then == "wait":
                with contextlib.suppress(ConnectionResetError):  # by who gives up before all is read
                    await reader.read()
        finally:
            if then == "reset":
                writer.transport.abort()
            writer.close()

    async with serve_streams(net, handle) as url:
        yield url


GOOD = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"junk\r\n\r\n", WSInvalidMessageError),
        (b"HTTP/1.1 101 OK\r\nX: " + b"a" * 20_000, WSInvalidMessageError),
        (GOOD.replace(b"\r\n\r\n", b"\r\n" + MANY_HEADERS.encode() + b"\r\n\r\n"), WSInvalidMessageError),
        (GOOD.replace(b"Upgrade: websocket", b"Upgrade: other"), WSInvalidUpgradeError),
        (GOOD.replace(b"Connection: Upgrade\r\n", b""), WSInvalidUpgradeError),
        (GOOD.replace(b"ACCEPT", b"AAAA"), WSInvalidHeaderError),
        (GOOD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), WSInvalidHeaderError),
        (GOOD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), WSInvalidHeaderError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", WSInvalidStatusError),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", WSInvalidStatusError),
    ],
    ids=["junk", "long", "many", "upgrade", "connection", "accept", "extension", "subprotocol", "200", "503"],
)
def test_refused_responses(net: Network, answer: bytes, error: type[WSHandshakeError]) -> None:
    async def test() -> None:
        async with answering(net, answer) as url:
            with pytest.raises(error) as caught:
                await net.connect(Recorder, url)
            assert type(caught.value) is error
            assert isinstance(caught.value, WSError)
            if error is WSInvalidStatusError:
                assert caught.value.response is not None
                assert caught.value.response.body == b"hi"

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 OK\r\nUpgr"], ids=["none", "cut"])
def test_a_server_that_leaves(net: Network, answer: bytes) -> None:
    async def test() -> None:
        async with answering(net, answer, then="close") as url:
            with pytest.raises(WSInvalidMessageError):
                await net.connect(Recorder, url)
        async with answering(net, answer, then="reset") as url:
            # A reset is told as what it is, if the system tells it.
            with pytest.raises((WSInvalidMessageError, ConnectionError)):
                await net.connect(Recorder, url)

    net.run(test())


@over_both_loops
def test_a_body_that_ends_with_the_connection(net: Network) -> None:
    async def test() -> None:
        async with answering(net, b"HTTP/1.1 403 No\r\n\r\nto the", b" end", then="close") as url:
            with pytest.raises(WSInvalidStatusError) as caught:
                await net.connect(Recorder, url)
            assert caught.value.raw_body == b"to the end"

    net.run(test())


@over_every_network
def test_a_server_that_does_not_answer(net: Network) -> None:
    async def test(answer: bytes) -> None:
        async with answering(net, answer) as url:
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await net.connect(Recorder, url, websocket_handshake_timeout=0.1)
            assert 0.09 <= time.monotonic() - began < 5

    net.run(all_at_once(test(b""), test(GOOD[:-1])))


@over_tcp_and_tls
def test_who_connects_may_give_up(net: Network) -> None:
    async def test() -> None:
        async with answering(net, b"") as url:
            connecting = asyncio.ensure_future(net.connect(Recorder, url, websocket_handshake_timeout=None))
            await asyncio.sleep(0.03)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    net.run(test())


@over_every_network
def test_a_response_byte_by_byte_with_frames_behind(net: Network) -> None:
    async def test() -> None:
        wire = GOOD + encode(TEXT, b"first", mask=False)
        cut_at = wire.index(b"ACCEPT")
        pieces = [bytes([byte]) for byte in wire[:cut_at]] + [b"ACCEPT"]
        pieces += [bytes([byte]) for byte in wire[cut_at + 6 :]]
        async with answering(net, *pieces) as url:
            client = await net.connect(Recorder, url)
            assert await client.payload() == b"first"
            await cut(client)
        # All in one read: nothing is told before on_ws_connected.
        async with answering(net, wire + encode(TEXT, b"second", mask=False)) as url:
            client = await net.connect(Recorder, url)
            assert [await client.payload() for _ in range(2)] == [b"first", b"second"]
            await cut(client)

    net.run(test())


@over_tcp_and_tls
def test_a_server_that_greets_and_leaves(net: Network) -> None:
    """Response, frames, CLOSE and the end in one go: ws_connect still returns, and everything was told."""

    async def test() -> None:
        wire = GOOD + encode(TEXT, b"hello", mask=False) + encode(8, b"", mask=False)
        async with answering(net, wire, then="close") as url:
            client = await net.connect(Recorder, url)
            await client.transport.wait_disconnected()
            assert [frame.payload for frame in client.rest()] == [b"hello", b""]
            assert client.calls == ["connected", "disconnected"]

    net.run(test())


@over_tcp_and_tls
def test_a_client_factory_that_fails(net: Network) -> None:
    async def test() -> None:
        ended = asyncio.Event()

        class Server(Recorder):
            def on_ws_disconnected(self, transport: WSTransport) -> None:
                ended.set()

        def factory() -> WSListener:
            raise LookupError("mine")

        async with net.serve(lambda request: Server()) as url:
            with pytest.raises(LookupError, match="mine"):
                await net.connect(factory, url)
            await ended.wait()
            with pytest.raises(TypeError):
                await net.connect(lambda: "no listener", url)

    net.run(test())


# -- other kinds of sockets --


@over_both_loops
@pytest.mark.parametrize("fast", [False, None], ids=["", "maybe-aiofastnet"])
def test_unix_sockets(net: Network, fast: bool | None) -> None:
    """On both sides: the server by its sock, the client by a socket_factory."""

    async def test() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "socket")
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(path)
            server = await ws_create_server(lambda request: Echo(), sock=listening, use_aiofastnet=fast)

            def connected(url: object) -> socket.socket:
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(path)
                return sock

            _, client = await ws_connect(
                Recorder, "ws://localhost/", socket_factory=connected, use_aiofastnet=fast
            )
            for size in (5, 300_000):
                client.transport.send(WSMsgType.BINARY, b"x" * size)
                assert await client.payload() == b"x" * size
            client.transport.disconnect()
            await client.transport.wait_disconnected()
            server.close()

    net.run(test())


@pytest.mark.parametrize("role", ROLES)
def test_read_buffer_size_is_a_hint_only(net: Network, role: str) -> None:
    async def test() -> None:
        for size in (1, 1 << 24):
            async with ROLES[role](net, Echo, read_buffer_init_size=size) as (peer, _):
                for length in (0, 1, 1000, 300_000):
                    peer.send(TEXT, b"x" * length)
                    assert (await peer.receive()).payload == b"x" * length

    net.run(test())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(net: Network) -> None:
    async def test() -> None:
        try:
            server = await ws_create_server(lambda request: Echo(), "::1", 0)
        except OSError:
            pytest.skip("no IPv6 loopback")
        client = await net.connect(Recorder, f"ws://[::1]:{server.sockets[0].getsockname()[1]}/")
        client.transport.send(WSMsgType(PING), b"hello")
        assert await client.frames.get() == Received(PONG, b"hello")
        await cut(client)
        server.close()

    net.run(test())


def test_many_connections_at_once(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo(), backlog=200) as url:
            clients = await asyncio.gather(*(net.connect(Recorder, url) for _ in range(100)))
            for i, client in enumerate(clients):
                client.transport.send(WSMsgType.TEXT, b"%d" % i)
            for i, client in enumerate(clients):
                assert await client.payload() == b"%d" % i
            await asyncio.gather(*(cut(client) for client in clients))

    net.run(test())


def test_the_factory_sees_nothing_of_a_client_that_is_gone(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Echo) as (peer, _):
            asked: list[Any] = []
            async with net.serve(asked.append) as url:
                async with stream(net, url) as other:
                    other.write(REQUEST[:-4])
                peer.send(PING)
                await peer.receive()
            assert asked == []

    net.run(test())
