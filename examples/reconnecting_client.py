"""A client that stays connected: whatever ends a connection, it comes back.

The log tells of every delay. They grow from one to the next, and are random: thousands of clients
that lost the same server shall not all return in the same instant.

$ python -m examples.reconnecting_client --url ws://127.0.0.1:9001/ --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Callable

from picows import WSBackoff, WSFrame, WSListener, WSMsgType, WSTransport, ws_reconnect


class Client(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        # Whatever the server has to know (log-in, subscriptions) is sent anew each time.
        transport.send(WSMsgType.TEXT, "Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            print(f"Received: {frame.get_payload_as_utf8_text()}")


async def stay_connected(listener_factory: Callable[[], WSListener], url: str) -> None:
    """Returns only by being cancelled, or raises what no waiting would mend."""
    # A peer that vanished without a word is noticed by its silence: hence the pings.
    connections = ws_reconnect(
        listener_factory, url, backoff=WSBackoff(initial=0.25, maximum=30), enable_auto_ping=True
    )
    async with connections:  # the last connection is closed before this is left
        async for transport, _ in connections:
            print("Connected")
            await transport.wait_disconnected()
            print("Disconnected")


async def main(url: str, seconds: float) -> None:
    client = asyncio.create_task(stay_connected(Client, url))
    await asyncio.wait({client}, timeout=seconds)
    client.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await client
    print("Stopped")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--seconds", type=float, default=60, help="how long to stay")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.url, args.seconds))
