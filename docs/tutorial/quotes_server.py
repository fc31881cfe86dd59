"""A server that publishes made-up prices as JSON to all who subscribed."""

import asyncio
import json
import random
import sys
from typing import Optional

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

INTERVAL = 0.25  # seconds between two prices


class Subscriber(WSListener):
    def __init__(self, subscribers: set[WSTransport]) -> None:
        self.subscribers = subscribers

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            check_subscription(frame.get_payload_as_bytes())
            self.subscribers.add(transport)
            print(f"{len(self.subscribers)} subscribed")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.subscribers.discard(transport)
        print(f"{len(self.subscribers)} subscribed")

    def pause_writing(self) -> None:
        # This client does not keep up. An old price is of no use, so it may come back later.
        self.transport.disconnect(graceful=False)


def check_subscription(message: bytes) -> None:
    try:
        operation = json.loads(message)["op"]
    except (ValueError, KeyError, TypeError):
        operation = None
    if operation != "subscribe":
        raise WSProtocolError(WSCloseCode.POLICY_VIOLATION, 'expected {"op": "subscribe"}')


async def publish(subscribers: set[WSTransport]) -> None:
    price = 100.0
    while True:
        price += random.uniform(-1, 1)
        quote = json.dumps({"symbol": "PICO", "price": round(price, 2)})
        for transport in tuple(subscribers):
            transport.send(WSMsgType.TEXT, quote)
        await asyncio.sleep(INTERVAL)


async def main(port: int = 9001) -> None:
    subscribers: set[WSTransport] = set()

    def accept(request: WSUpgradeRequest) -> Optional[WSListener]:
        if request.path == b"/quotes":
            return Subscriber(subscribers)
        return None  # 404 Not Found

    server = await ws_create_server(accept, "127.0.0.1", port)
    print("Listening on ws://{}:{}/quotes".format(*server.sockets[0].getsockname()))
    await publish(subscribers)


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(int, sys.argv[1:])))
    except KeyboardInterrupt:
        print("Stopped")
