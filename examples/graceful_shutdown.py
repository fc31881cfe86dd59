"""Closing by the book (RFC 6455, section 7): CLOSE, its answer, and only then the end of TCP.

A client leaves, then a server is told to stop while another client is still connected.

$ python -m examples.graceful_shutdown
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSServer,
    WSTransport,
    ws_connect,
    ws_create_server,
)


class Listener(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            # The peer's own CLOSE, or its answer to ours. No need to tell them apart: after the
            # first CLOSE nothing is sent. Behind this call the CLOSE is answered.
            transport.send(WSMsgType.TEXT, "goodbye")


async def close(
    transport: WSTransport, code: WSCloseCode, reason: str, timeout: float = 5.0
) -> None:
    """Says goodbye, and waits at most `timeout` seconds for the peer to do so too."""
    transport.send_close(code, reason)
    try:
        await asyncio.wait_for(transport.wait_disconnected(), timeout)
    except asyncio.TimeoutError:
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()


async def shut_down(server: WSServer) -> None:
    server.close()  # nobody new; the connections there are go on
    await asyncio.gather(
        *(close(transport, WSCloseCode.GOING_AWAY, "restart") for transport in server.connections)
    )
    await server.wait_closed()


async def main(host: str, port: int) -> None:
    # Service managers stop a program by SIGTERM, a terminal does by SIGINT (Ctrl+C).
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)

    server = await ws_create_server(lambda request: Listener(), host, port)
    url = "ws://{}:{}/".format(*server.sockets[0].getsockname())

    client, _ = await ws_connect(Listener, url)
    await close(client, WSCloseCode.OK, "done")
    print(f"The client left: {describe(client)}")

    client, _ = await ws_connect(Listener, url)
    os.kill(os.getpid(), signal.SIGTERM)  # in life, somebody else does this
    await stop.wait()
    await shut_down(server)
    await client.wait_disconnected()
    print(f"The server stopped: {describe(client)}")


def describe(transport: WSTransport) -> str:
    # How a connection ended, seen from this side; `sent` or `recv` is None for one that broke.
    handshake = transport.close_handshake
    if handshake is None or handshake.sent is None or handshake.recv is None:
        return "no closing handshake"
    first, second = handshake.sent, handshake.recv
    if handshake.recv_then_sent:
        first, second = second, first
    return f"CLOSE {first.code} {first.reason!r}, answered by {second.code} {second.reason!r}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    args = parser.parse_args()
    asyncio.run(main(args.host, args.port))
