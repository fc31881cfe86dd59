"""An echo server on several threads: one event loop each, one port for all.

For a free-threaded Python, where the threads really run at the same time; with a GIL they take
turns. Every thread listens on the port by itself (SO_REUSEPORT), and the operating system spreads
the clients over them.

$ python3.13t -m examples.echo_server_threaded --threads 4
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

from picows import WSCloseCode, WSTransport, WSUpgradeRequest, ws_create_server

from .echo_server import EchoListener

log = logging.getLogger(__name__)  # unlike print, it does not mix up the lines of two threads


class Listener(EchoListener):
    def __init__(self, connected: set[WSTransport]) -> None:
        self._connected = connected

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._connected.add(transport)
        log.info("Client connected")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._connected.discard(transport)


async def serve(host: str, port: int, stop: threading.Event) -> None:
    connected: set[WSTransport] = set()  # this thread's, and touched by it alone

    def listener_factory(request: WSUpgradeRequest) -> Listener:
        return Listener(connected)

    server = await ws_create_server(listener_factory, host, port, reuse_port=True)
    log.info("Listening on ws://%s:%d/", host, port)
    # One thread sets a threading.Event and many may wait for it, but waiting would block the
    # event loop: a helper thread does that.
    await asyncio.to_thread(stop.wait)
    server.close()
    for transport in connected:
        transport.send_close(WSCloseCode.GOING_AWAY)
        transport.disconnect()
    await server.wait_closed()


def main(host: str, port: int, threads: int) -> None:
    # Bound, but not listening, a socket takes no clients. It finds out the port, if that is 0,
    # and holds it until every thread has its own.
    with socket.socket() as reserved, ThreadPoolExecutor(threads, "loop") as pool:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
        host, port = reserved.getsockname()
        stop = threading.Event()
        loops = [pool.submit(asyncio.run, serve(host, port, stop)) for _ in range(threads)]
        try:
            # Sleeps until Ctrl+C, or until a thread fails: either way, all the others stop too.
            for loop in as_completed(loops):
                loop.result()
        except KeyboardInterrupt:
            log.info("Stopping")
        finally:
            stop.set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    parser.add_argument("--threads", type=int, default=4)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(threadName)s: %(message)s")
    main(args.host, args.port, args.threads)
