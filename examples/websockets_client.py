"""A client as the package `websockets` has it, that comes back when its connection is lost.

$ python -m examples.websockets_client --url ws://127.0.0.1:9001/ --count 3
"""

from __future__ import annotations

import argparse
import asyncio

from picows.websockets.asyncio.client import connect
from picows.websockets.exceptions import ConnectionClosed


async def main(url: str, count: int) -> None:
    # A new connection whenever the last one is lost, after longer and longer pauses.
    async for websocket in connect(url):
        try:
            for number in range(count):
                await websocket.send(f"Hello {number}")
                print(f"Echo reply: {await websocket.recv()}")
            pong = await websocket.ping()
            await pong
            print("The server has seen all of it")
            await websocket.close()
            return
        except ConnectionClosed as closed:
            print(f"Lost: {closed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--count", type=int, default=3)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.count))
