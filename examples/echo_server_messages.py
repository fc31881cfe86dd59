"""An echo server of whole messages, with compression and a closing handshake that need no code.

$ python -m examples.echo_server_messages --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from picows import WSDeflate, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server


class EchoListener(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # A frame is a whole message here: joined, decompressed, and UTF-8 if it is TEXT.
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        print("Client disconnected")


async def main(host: str, port: int) -> None:
    server = await ws_create_server(
        lambda request: EchoListener(),
        host,
        port,
        compression=WSDeflate(),  # for the clients that offer it
        assemble_messages=True,
        max_message_size=1024 * 1024,
    )
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
