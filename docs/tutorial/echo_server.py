"""An echo server: every message goes back to where it came from."""

import asyncio
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class Connection(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        print("A client has come")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            transport.send(frame.msg_type, frame, frame.fin)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        print("A client has left")


def accept(request: WSUpgradeRequest) -> WSListener:
    return Connection()


async def main(port: int = 9001) -> None:
    server = await ws_create_server(accept, "127.0.0.1", port)
    print("Listening on ws://{}:{}/".format(*server.sockets[0].getsockname()))
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(int, sys.argv[1:])))
    except KeyboardInterrupt:
        print("Stopped")
