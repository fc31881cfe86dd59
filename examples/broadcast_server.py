"""A broadcast server: what one client says, all of them hear.

$ python -m examples.broadcast_server --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_broadcast, ws_create_server

MAX_UNSENT = 1024 * 1024  # bytes that may wait for one client


class Room:
    def __init__(self) -> None:
        self._members: set[WSTransport] = set()

    def join(self, transport: WSTransport) -> None:
        self._members.add(transport)
        print(f"{len(self._members)} in the room")

    def leave(self, transport: WSTransport) -> None:
        self._members.discard(transport)
        print(f"{len(self._members)} in the room")

    def broadcast(self, message: memoryview) -> None:
        # One frame for all: built once, and one write to each member.
        ws_broadcast(self._members, WSMsgType.TEXT, message)


class Member(WSListener):
    def __init__(self, room: Room) -> None:
        self._room = room

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(MAX_UNSENT)
        self._room.join(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            # The frame is built straight from the sender's payload: no copy between.
            self._room.broadcast(frame.get_payload_as_memoryview())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._room.leave(transport)

    def pause_writing(self) -> None:
        # More than MAX_UNSENT bytes wait for this client. Waiting for it would hold up all the
        # others, and hoarding would fill the memory: so it has to go, at once.
        print("A client was too slow")
        self._transport.disconnect(graceful=False)


async def main(host: str, port: int) -> None:
    room = Room()
    server = await ws_create_server(lambda request: Member(room), host, port)
    for sock in server.sockets:
        print("Listening on ws://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()  # until Ctrl+C, of which every client is told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
