"""A client that prints prices for as long as it runs, whatever becomes of a connection."""

import asyncio
import json
import random
import sys

from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

FIRST_PAUSE = 0.25  # seconds
LONGEST_PAUSE = 30.0


class QuotesClient(WSListener):
    def __init__(self) -> None:
        self.quotes = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, json.dumps({"op": "subscribe"}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            quote = json.loads(frame.get_payload_as_bytes())
            self.quotes += 1
            print(f"{quote['symbol']} costs {quote['price']}")


async def stay_connected(url: str) -> None:
    pause = FIRST_PAUSE
    while True:
        try:
            client = await run_connection(url)
            print("Disconnected")
            if client.quotes:
                pause = FIRST_PAUSE
        except (OSError, WSError, asyncio.TimeoutError) as error:
            print(f"Failed: {error}")
        await asyncio.sleep(random.uniform(pause / 2, pause))
        pause = min(2 * pause, LONGEST_PAUSE)


async def run_connection(url: str) -> QuotesClient:
    client = QuotesClient()
    transport, _ = await ws_connect(
        lambda: client,
        url,
        enable_auto_ping=True,
        auto_ping_idle_timeout=5,
        auto_ping_reply_timeout=5,
    )
    print("Connected")
    try:
        await transport.wait_disconnected()
    except asyncio.CancelledError:
        transport.send_close(WSCloseCode.GOING_AWAY)
        transport.disconnect()
        await transport.wait_disconnected()
        raise
    return client


async def main(url: str = "ws://127.0.0.1:9001/quotes") -> None:
    await stay_connected(url)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("Stopped")
