"""Socket options: before connecting by `socket_factory`, afterwards by `on_ws_connected`.

TCP_NODELAY is set by picows already, and TCP_QUICKACK where there is one.

$ python -m examples.socket_options --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
import socket

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    ws_connect,
)


async def socket_factory(url: WSParsedURL) -> socket.socket:
    # May be a plain function too, when it has nothing to wait for. It may connect the socket
    # itself or, as here, leave that to picows; or return None, to change nothing.
    addresses = await asyncio.get_running_loop().getaddrinfo(
        url.host, url.port, type=socket.SOCK_STREAM
    )
    family, kind, proto, _, _ = addresses[0]
    sock = socket.socket(family, kind, proto)
    # TCP agrees on its window scale when it connects: a large receive buffer asked for later
    # could not be used in full.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
    return sock


class EchoClient(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        # Most options may be set at any time. This works the same on a server's connections.
        sock = transport.underlying_transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for level, name in (
            (socket.SOL_SOCKET, "SO_RCVBUF"),
            (socket.SOL_SOCKET, "SO_KEEPALIVE"),
            (socket.IPPROTO_TCP, "TCP_NODELAY"),
        ):
            print(f"{name}: {sock.getsockopt(level, getattr(socket, name))}")
        transport.send(WSMsgType.TEXT, "Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            print(f"Echo reply: {frame.get_payload_as_utf8_text()}")
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def main(url: str) -> None:
    transport, _ = await ws_connect(EchoClient, url, socket_factory=socket_factory)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
