"""What both sides agree on in the opening handshake: the subprotocol and the compression, and how that is told."""

from __future__ import annotations

from typing import Any

import pytest

from picows import (
    WSDeflate,
    WSInvalidHeaderError,
    WSInvalidStatusError,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from tests.connection.networks import Echo, Network, Recorder, cut, over_both_loops
from tests.connection.peers import REQUEST, TEXT, serve_streams, stream, upgrade_response

HEADER = "Sec-WebSocket-Protocol"


@over_both_loops
@pytest.mark.parametrize(
    ("offered", "served", "chosen"),
    [
        (["v1", "v2"], ["v2", "v1"], "v2"),  # the server's order counts
        (["v1", "v2"], ("v3", "v1"), "v1"),
        (["v1"], ["V1"], None),
        (["v1"], None, None),
        (None, ["v1"], None),
        ([], [], None),
    ],
)
def test_both_sides_know_it(net: Network, offered: Any, served: Any, chosen: str | None) -> None:
    async def test() -> None:
        told = []

        class Client(Recorder):
            def on_ws_connected(self, transport: Any) -> None:
                super().on_ws_connected(transport)
                told.append(transport.subprotocol)

        async with net.pair(
            Client, client_options={"subprotocols": offered}, server_options={"subprotocols": served}
        ) as (client, server):
            assert told == [chosen]
            assert client.transport.subprotocol == server.transport.subprotocol == chosen
            assert server.transport.request.headers.get(HEADER) == (", ".join(offered) if offered else None)
            assert client.transport.response.headers.getall(HEADER, []) == ([chosen] if chosen else [])
            client.transport.disconnect()
            await server.disconnected.wait()
            assert server.transport.subprotocol == chosen

    net.run(test())


def test_an_offer_on_several_lines(net: Network) -> None:
    async def test() -> None:
        offers = f"\r\n{HEADER}: a,b ,\r\n{HEADER}: c\r\n\r\n".encode()
        async with net.serve(lambda request: Echo(), subprotocols=["c", "b"]) as url, stream(net, url) as peer:
            peer.write(REQUEST[:-4] + offers)
            assert f"\r\n{HEADER}: c\r\n".encode() in await peer.reader.readuntil(b"\r\n\r\n")

    net.run(test())


def test_a_response_that_chooses_itself(net: Network) -> None:
    """With it goes whatever it says; another response has nothing of the kind."""

    def factory(request: WSUpgradeRequest) -> Any:
        if request.path == b"/no":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(403), None)
        headers = {HEADER: "v1"} if request.path == b"/v1" else {"X-A": "b"}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), Echo())

    async def test() -> None:
        async with net.serve(factory, subprotocols=["v2", "v1"]) as url:
            for path, chosen in (("v1", "v1"), ("", "v2")):
                client = await net.connect(Recorder, url + path, subprotocols=["v1", "v2"])
                assert client.transport.response.headers.getall(HEADER) == [chosen]
                assert client.transport.subprotocol == chosen
                await cut(client)
            with pytest.raises(WSInvalidStatusError) as caught:
                await net.connect(Recorder, url + "no", subprotocols=["v1"])
            assert caught.value.response is not None
            assert HEADER not in caught.value.response.headers

    net.run(test())


def test_a_client_is_told_what_it_did_not_offer(net: Network) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        answer = upgrade_response(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer[:-2] + f"{HEADER}: v3\r\n\r\n".encode())
        writer.close()

    async def test() -> None:
        async with serve_streams(net, handle) as url:
            with pytest.raises(WSInvalidHeaderError):
                await net.connect(Recorder, url, subprotocols=["v1", "v2"])

    net.run(test())


def test_headers_of_ones_own_and_names_do_not_mix(net: Network) -> None:
    async def test() -> None:
        mine = {HEADER.lower(): "v1"}
        with pytest.raises(ValueError, match=HEADER):
            await net.connect(Recorder, "ws://127.0.0.1:9/", subprotocols=["v2"], extra_headers=mine)
        # As ever, without the option.
        async with net.serve(lambda request: Echo(), subprotocols=["v1"]) as url:
            client = await net.connect(Recorder, url, extra_headers=mine)
            assert client.transport.subprotocol == "v1"
            await cut(client)

    net.run(test())


# The settings of the client and of the server, and the windows of the server and of the client in the eyes of both: a client
# may use a smaller one than it was allowed. Then who forgets.
AGREED = {
    "nothing said": (WSDeflate(), WSDeflate(level=1), (12, 12), (12, 12), (False, False)),
    "client's windows": (
        WSDeflate(server_max_window_bits=10, client_max_window_bits=9, min_size=7),
        WSDeflate(),
        (10, 9),
        (10, 9),
        (False, False),
    ),
    "server's windows": (
        WSDeflate(),
        WSDeflate(server_max_window_bits=15, client_max_window_bits=15),
        (15, 12),
        (15, 15),
        (False, False),
    ),
    "nobody remembers": (
        WSDeflate(client_no_context_takeover=True),
        WSDeflate(server_no_context_takeover=True),
        (12, 12),
        (12, 12),
        (True, True),
    ),
}


@over_both_loops
@pytest.mark.parametrize("case", AGREED)
def test_the_compression_that_was_agreed_on(net: Network, case: str) -> None:
    offered, served, to_client, to_server, forgetting = AGREED[case]

    async def test() -> None:
        async with net.pair(
            client_options={"compression": offered}, server_options={"compression": served}
        ) as (client, server):
            for listener, settings, windows in ((client, offered, to_client), (server, served, to_server)):
                told = listener.transport.compression
                assert isinstance(told, WSDeflate)
                assert (told.server_max_window_bits, told.client_max_window_bits) == windows
                assert (told.server_no_context_takeover, told.client_no_context_takeover) == forgetting
                assert (told.level, told.min_size, told.zlib) == (settings.level, settings.min_size, settings.zlib)
            client.transport.send(TEXT, b"x" * 1000)
            assert (await server.payload()) == b"x" * 1000
            client.transport.disconnect()
            await server.disconnected.wait()
            assert server.transport.compression is not None

    net.run(test())


@pytest.mark.parametrize("wanted_by", ["client_options", "server_options"])
def test_no_compression_was_agreed_on(net: Network, wanted_by: str) -> None:
    async def test() -> None:
        options: dict[str, Any] = {wanted_by: {"compression": WSDeflate()}}
        async with net.pair(**options) as (client, server):
            assert client.transport.compression is None
            assert server.transport.compression is None

    net.run(test())
