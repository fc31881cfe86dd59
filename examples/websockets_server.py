"""A chat written with the coroutines of the package `websockets`: rooms by path, a health check, graceful shutdown.

$ python -m examples.websockets_server --port 8765
$ python -m websockets ws://127.0.0.1:8765/lobby
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from http import HTTPStatus

from picows.websockets import Request, Response, ServerConnection, broadcast, serve

rooms: dict[str, set[ServerConnection]] = {}


def health_check(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(HTTPStatus.OK, "OK\n") if request.path == "/health" else None


async def chat(ws: ServerConnection) -> None:
    members = rooms.setdefault(ws.request.path, set())
    members.add(ws)
    try:
        async for message in ws:
            broadcast(members, message)
    finally:
        members.discard(ws)


async def main(host: str, port: int) -> None:
    async with serve(chat, host, port, process_request=health_check) as server:
        for sock in server.sockets:
            print("Listening on ws://{}:{}/".format(*sock.getsockname()))
        await server.serve_forever()  # until Ctrl+C, of which every client is told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.host, arguments.port))
