"""A client that prints prices for as long as it runs, whatever becomes of a connection."""

import asyncio
import json
import logging
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_reconnect


class QuotesClient(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, json.dumps({"op": "subscribe"}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            quote = json.loads(frame.get_payload_as_bytes())
            print(f"{quote['symbol']} costs {quote['price']}")


async def main(url: str = "ws://127.0.0.1:9001/quotes") -> None:
    connections = ws_reconnect(
        QuotesClient,
        url,
        enable_auto_ping=True,
        auto_ping_idle_timeout=5,
        auto_ping_reply_timeout=5,
    )
    async with connections:
        async for transport, _ in connections:
            print("Connected")
            await transport.wait_disconnected()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("Stopped")
