"""A client that stays connected: whatever ends a connection, it comes back.

The pause between two attempts grows from one to the next, and is random: thousands of clients
that lost the same server shall not all return in the same instant.

$ python -m examples.reconnecting_client --url ws://127.0.0.1:9001/ --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Callable

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

FIRST_DELAY = 0.25  # seconds
LONGEST_DELAY = 30.0


class Client(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        # Whatever the server has to know (log-in, subscriptions) is sent anew each time.
        transport.send(WSMsgType.TEXT, "Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            print(f"Received: {frame.get_payload_as_utf8_text()}")


async def stay_connected(listener_factory: Callable[[], WSListener], url: str) -> None:
    """Returns only by being cancelled."""
    loop = asyncio.get_running_loop()
    delay = FIRST_DELAY
    while True:
        started = loop.time()
        try:
            await run_connection(listener_factory, url)
            print("Disconnected")
        except (OSError, WSError, asyncio.TimeoutError) as exc:
            # What a network may do. CancelledError and faults of our own are not on this list,
            # and end the loop.
            print(f"Connection failed: {exc!r}")
        # A server that accepts a connection only to drop it does not count as back.
        if loop.time() - started > LONGEST_DELAY:
            delay = FIRST_DELAY
        pause = random.uniform(delay / 2, delay)
        print(f"Reconnecting in {pause:.2f} s")
        await asyncio.sleep(pause)
        delay = min(delay * 2, LONGEST_DELAY)


async def run_connection(listener_factory: Callable[[], WSListener], url: str) -> None:
    # A peer that vanished without a word is noticed by its silence: hence the pings.
    transport, _ = await ws_connect(listener_factory, url, enable_auto_ping=True)
    print("Connected")
    try:
        await transport.wait_disconnected()
    except asyncio.CancelledError:
        # Cancelling the wait leaves the connection alone, so it is for us to end it.
        transport.send_close(WSCloseCode.GOING_AWAY)
        transport.disconnect()
        await transport.wait_disconnected()
        raise


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
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.url, args.seconds))
