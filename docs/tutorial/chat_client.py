"""Says one thing in the chat, and prints what is said until that has come back."""

import asyncio
import sys

from picows.websockets import connect


async def main(name: str, url: str = "ws://127.0.0.1:9001/") -> None:
    mine = f"{name}: hello"
    async with connect(url) as websocket:
        await websocket.send(mine)
        async for message in websocket:
            print(message)
            if message == mine:
                break


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
