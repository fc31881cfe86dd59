"""An echo server: every message goes back to where it came from.

$ python -m examples.echo_server --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)


# One listener serves one connection. Its callbacks are plain functions which the event loop
# calls directly, so they must not block.
class EchoListener(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        print("Client connected")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # PING never gets here, it has been answered already. CLOSE is answered behind this call.
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            # A view of the payload is sent without a copy, and `fin` keeps fragments fragments.
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        print("Client disconnected")


def listener_factory(request: WSUpgradeRequest) -> WSListener:
    # Called for every new client. The request's path and headers are there to choose by.
    return EchoListener()


async def main(host: str, port: int) -> None:
    server = await ws_create_server(listener_factory, host, port)
    for sock in server.sockets:
        print("Listening on ws://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()  # until Ctrl+C, of which every client is told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
