"""Echo clients on several threads: one event loop each, a few connections per loop.

For a free-threaded Python, where the threads really run at the same time; with a GIL they take
turns. A connection belongs to the thread of its event loop, and only that thread may use it.

$ python3.13t -m examples.echo_client_threaded --threads 4 --connections 10
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class EchoClient(WSListener):
    def __init__(self) -> None:
        self.round_trips = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.BINARY, b"Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.round_trips += 1
            transport.send(WSMsgType.BINARY, frame.get_payload_as_memoryview())


async def connect(url: str) -> tuple[WSTransport, EchoClient]:
    client = EchoClient()
    transport, _ = await ws_connect(lambda: client, url)
    return transport, client


async def run_clients(url: str, connections: int, seconds: float, stop: threading.Event) -> int:
    pairs = await asyncio.gather(*(connect(url) for _ in range(connections)))
    # Another thread may say stop before the time is over. To wait for that without blocking this
    # event loop, a helper thread does the waiting.
    await asyncio.to_thread(stop.wait, seconds)
    for transport, _ in pairs:
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()
    await asyncio.gather(*(transport.wait_disconnected() for transport, _ in pairs))
    return sum(client.round_trips for _, client in pairs)


def main(url: str, threads: int, connections: int, seconds: float) -> None:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{threads} threads, the GIL is {'on' if gil else 'off'}")
    with ThreadPoolExecutor(threads, "loop") as pool:
        stop = threading.Event()
        loops = [
            pool.submit(asyncio.run, run_clients(url, connections, seconds, stop))
            for _ in range(threads)
        ]
        try:
            # Ctrl+C, or a failure in one thread, stops them all.
            for loop in as_completed(loops):
                print(f"A thread made {loop.result() / seconds:.0f} round trips per second")
        finally:
            stop.set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--connections", type=int, default=10, help="of each thread")
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    main(args.url, args.threads, args.connections, args.seconds)
