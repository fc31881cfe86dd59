"""An echo server and a client in one go: one message shown, then round trips timed over TCP and TLS on each event loop.

    python -m examples.demo [--seconds 2] [--size 64]

The server runs in a process of its own. The client keeps one message in flight, so a rate here is the inverse of the
mean time of one round trip.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import ssl
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

CERTIFICATE = Path(__file__).with_name("localhost.pem")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


class EchoListener(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


async def serve(parent: Connection) -> None:
    """Listens for plain and for TLS connections, sends both ports to the parent and serves until it hangs up."""

    def new_listener(request: WSUpgradeRequest) -> WSListener:
        return EchoListener()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    plain = await ws_create_server(new_listener, "127.0.0.1", 0)
    secure = await ws_create_server(new_listener, "127.0.0.1", 0, ssl=context)

    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_reader(parent.fileno(), hung_up.set)
    parent.send([server.sockets[0].getsockname()[1] for server in (plain, secure)])
    await hung_up.wait()
    plain.close()
    secure.close()


def serve_in_process(loop_name: str, parent: Connection) -> None:
    run(loop_name, serve(parent))


def run(loop_name: str, main: Any) -> Any:
    loop = LOOPS[loop_name]()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


class TimedClient(WSListener):
    """Sends a message, waits for its echo and sends the next one, until the time is over."""

    WARM_UP = 200

    def __init__(self, message: bytes, seconds: float) -> None:
        self.message = message
        self.seconds = seconds
        self.first_frame = ""
        self.echoes = 0
        self.times: list[float] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.send(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = perf_counter()
        if frame.msg_type != WSMsgType.BINARY:
            return
        if not self.echoes:
            self.first_frame = str(frame)
        self.echoes += 1
        if self.echoes <= self.WARM_UP:
            self.end = now + self.seconds
        else:
            self.times.append(now - self.sent)
            if now > self.end:
                transport.send_close()
                transport.disconnect()
                return
        self.send(transport)

    def send(self, transport: WSTransport) -> None:
        self.sent = perf_counter()
        transport.send(WSMsgType.BINARY, self.message)

    def percentile(self, percent: int) -> float:
        """Microseconds that `percent` of the round trips took at most."""
        return sorted(self.times)[(len(self.times) - 1) * percent // 100] * 1e6


async def measure(url: str, message: bytes, seconds: float) -> TimedClient:
    context = ssl.create_default_context(cafile=CERTIFICATE) if url.startswith("wss:") else None
    client = TimedClient(message, seconds)
    transport, _ = await ws_connect(lambda: client, url, ssl_context=context)
    await transport.wait_disconnected()
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description="Times echo round trips over TCP and TLS on each event loop.")
    parser.add_argument("--seconds", type=float, default=2, help="how long each row is measured (default: 2)")
    parser.add_argument("--size", type=int, default=64, help="bytes in a message (default: 64)")
    args = parser.parse_args()
    message = b"picows! " * (args.size // 8 + 1)
    message = message[: args.size]

    processes = multiprocessing.get_context("spawn")
    first = True
    for loop_name in LOOPS:
        here, there = processes.Pipe()
        server = processes.Process(target=serve_in_process, args=(loop_name, there), daemon=True)
        server.start()
        there.close()
        plain_port, secure_port = here.recv()
        for transport, url in (("TCP", f"ws://127.0.0.1:{plain_port}/"), ("TLS", f"wss://127.0.0.1:{secure_port}/")):
            client = run(loop_name, measure(url, message, args.seconds))
            if first:
                print(f"The client sent {args.size} bytes to {url}")
                print(f"and received   {client.first_frame}\n")
                print("event loop  over  round trips/s   p50 us   p99 us")
                first = False
            rate = len(client.times) / sum(client.times)
            p50, p99 = client.percentile(50), client.percentile(99)
            print(f"{loop_name:10}  {transport}   {rate:13,.0f} {p50:8.1f} {p99:8.1f}", flush=True)
        here.close()
        server.join()
    if "uvloop" not in LOOPS:
        print("uvloop      (not installed)")


if __name__ == "__main__":
    main()
