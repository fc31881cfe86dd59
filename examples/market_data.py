"""Prices of an exchange, decoded where they lie, by a client that comes back whatever ends its connection.

$ python -m examples.market_data wss://exchange.example/trades BTC-USDT ETH-USDT
"""

import asyncio
import logging
import sys

import msgspec

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_reconnect


class Trade(msgspec.Struct):
    symbol: str
    price: float


class Feed(WSListener):
    decode = msgspec.json.Decoder(Trade).decode

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, msgspec.json.encode({"op": "subscribe", "symbols": sys.argv[2:]}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            print(self.decode(frame))  # a frame is a buffer: nothing is copied


async def main(url: str) -> None:
    async with ws_reconnect(Feed, url, assemble_messages=True, enable_auto_ping=True) as connections:
        async for transport, _ in connections:
            await transport.wait_disconnected()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # each delay before it comes back
    asyncio.run(main(sys.argv[1]))
