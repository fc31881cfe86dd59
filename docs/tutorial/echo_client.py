"""An echo client: says hello, prints the reply and leaves."""

import asyncio
import sys

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class Client(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, "Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            print("Reply:", frame.get_payload_as_utf8_text())
            transport.send_close(WSCloseCode.OK, "thank you")


async def main(url: str = "ws://127.0.0.1:9001/") -> None:
    transport, _ = await ws_connect(Client, url)
    await transport.wait_disconnected()
    print(transport.close_handshake)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
