"""A chat: what one client says, all of them hear."""

import asyncio
import sys

from picows.websockets import ServerConnection, broadcast, serve

clients: set[ServerConnection] = set()


async def chat(websocket: ServerConnection) -> None:
    clients.add(websocket)
    print(len(clients), "in the room")
    try:
        async for message in websocket:
            broadcast(clients, message)
    finally:
        clients.remove(websocket)
        print(len(clients), "in the room")


async def main(port: int = 9001) -> None:
    async with serve(chat, "127.0.0.1", port) as server:
        print("Listening on ws://{}:{}/".format(*server.sockets[0].getsockname()))
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(int, sys.argv[1:])))
    except KeyboardInterrupt:
        print("Stopped")
