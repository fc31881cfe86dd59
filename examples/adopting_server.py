"""WebSockets within somebody else's HTTP server, which hands them over when it has read the request.

$ python -m examples.adopting_server --port 9001
$ curl -i http://127.0.0.1:9001/
$ python -m examples.echo_client --url ws://127.0.0.1:9001/echo
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import cast

from picows import ws_adopt

from .echo_server import listener_factory


class HTTP(asyncio.Protocol):
    """Stands for a real server: it answers two lines of text, and knows one path that is not its own."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        if self._received.startswith(b"GET /echo "):
            # With all that was read: the client's first frames may have come with its request.
            # From here on this object hears no more of the connection.
            ws_adopt(listener_factory, self._transport, self._received)
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
            b"There is a websocket at /echo\n"
        )
        self._transport.close()


async def main(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(HTTP, host, port)
    for sock in server.sockets:
        print("Listening on ws://{}:{}/echo".format(*sock.getsockname()))
    with contextlib.closing(server):
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
