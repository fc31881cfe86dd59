"""A client that subscribes, prints three prices and leaves."""

import asyncio
import json
import sys

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class QuotesClient(WSListener):
    def __init__(self) -> None:
        self.quotes = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, json.dumps({"op": "subscribe"}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.on_quote(transport, json.loads(frame.get_payload_as_bytes()))

    def on_quote(self, transport: WSTransport, quote: dict) -> None:
        self.quotes += 1
        print(f"{quote['symbol']} costs {quote['price']}")
        if self.quotes == 3:
            transport.send_close(WSCloseCode.OK)


async def main(url: str = "ws://127.0.0.1:9001/quotes") -> None:
    transport, _ = await ws_connect(QuotesClient, url)
    await transport.wait_disconnected()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
