"""Echo over one event loop per thread: what a second thread adds, and what a message costs the server.

    python profiling/scaling.py [--threads 1 2] [--burst 1024] [--at-least 1.8]

The server is one process, with a loop in each of its threads and one port for all of them. The load comes from other processes:
prebuilt frames, a burst of them in flight on each connection, and of what comes back only the bytes are counted. It takes its
share of the machine all the same. With no core to spare for it, look at the processor time of a message and at how many
cores the server got, or measure with --own-load: each loop then makes its own load, and no other process takes part.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import selectors
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Callable, NamedTuple

from wire import binary_frame

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

HOST = "127.0.0.1"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
BINARY = WSMsgType.BINARY
WARM_UP = 0.5


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == BINARY:
            transport.send(BINARY, frame)


class Usage(NamedTuple):
    """What the server had used at a time."""

    wall: float
    user: float
    system: float


class Work(NamedTuple):
    """What is in flight on each connection."""

    size: int
    burst: int

    def wire_and_reply(self) -> tuple[bytes, int]:
        """The frames of a burst, and how many bytes come back for them."""
        payload = bytes(index % 251 for index in range(self.size))
        wire = binary_frame(payload, b"\x37\xfa\x21\x3d") * self.burst
        return wire, len(binary_frame(payload)) * self.burst


async def make_own_load(port: int, work: Work, count: Callable[[], None]) -> None:
    """One connection's load, made in the loop of its server."""
    loop = asyncio.get_running_loop()
    wire, reply = work.wire_and_reply()
    buffer = bytearray(1 << 20)
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, (HOST, port))
        await loop.sock_sendall(sock, REQUEST)
        await loop.sock_recv(sock, 4096)
        while True:
            await loop.sock_sendall(sock, wire)
            missing = reply
            while missing:
                missing -= await loop.sock_recv_into(sock, buffer)
            count()


def serve(threads: int, own_load: int, work: Work, parent: Connection) -> None:
    """The server's process: tells its port, then answers each question by what it has used, until it is ended."""
    connections = [0] * threads
    messages = [0] * threads
    ready = threading.Barrier(threads + 1)

    async def loop_of(index: int, port: int) -> None:
        def factory(request: WSUpgradeRequest) -> WSListener:
            connections[index] += 1  # this thread's own
            return Echo()

        def count() -> None:
            messages[index] += work.burst

        server = await ws_create_server(factory, HOST, 0 if own_load else port, reuse_port=True)
        own_port = server.sockets[0].getsockname()[1]
        ready.wait()
        await asyncio.gather(server.serve_forever(), *(make_own_load(own_port, work, count) for _ in range(own_load)))

    # Bound, but not listening, a socket takes no clients; it finds a port for all.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((HOST, 0))
        port = reserved.getsockname()[1]
        for index in range(threads):
            threading.Thread(target=asyncio.run, args=[loop_of(index, port)], daemon=True).start()
        ready.wait()
    parent.send(port)
    while parent.recv():
        used = resource.getrusage(resource.RUSAGE_SELF)
        parent.send((sum(messages), Usage(time.perf_counter(), used.ru_utime, used.ru_stime), connections))


def load(port: int, connections: int, work: Work, parent: Connection) -> None:
    """A load's process: answers each question by how many messages have come back, until it is ended."""
    wire, reply = work.wire_and_reply()
    buffer = bytearray(1 << 20)
    selector = selectors.DefaultSelector()
    selector.register(parent, selectors.EVENT_READ)
    missing = {}
    for _ in range(connections):
        sock = socket.create_connection((HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(REQUEST)
        assert b" 101 " in sock.recv(4096)
        selector.register(sock, selectors.EVENT_READ)
        missing[sock] = reply
        sock.sendall(wire)
    bursts = 0
    while True:
        for key, _ in selector.select():
            if key.fileobj is parent:
                if not parent.recv():
                    return
                parent.send(bursts * work.burst)
                continue
            sock = key.fileobj
            missing[sock] -= sock.recv_into(buffer)
            if not missing[sock]:
                missing[sock] = reply
                bursts += 1
                sock.sendall(wire)


def ask(process: Connection) -> Any:
    process.send(True)
    return process.recv()


def measure(threads: int, args: argparse.Namespace) -> dict[str, Any]:
    processes = multiprocessing.get_context("spawn")
    started = []

    def start(target: Any, *arguments: Any) -> Connection:
        here, there = processes.Pipe()
        process = processes.Process(target=target, args=[*arguments, there], daemon=True)
        process.start()
        there.close()
        started.append((process, here))
        return here

    work = Work(args.size, args.burst)
    own_load = -(-args.connections // threads) if args.own_load else 0
    server = start(serve, threads, own_load, work)
    port = server.recv()
    share = -(-args.connections // args.loads)
    loads = [] if own_load else [start(load, port, share, work) for _ in range(args.loads)]
    for each in loads:
        ask(each)  # all of its connections are there
    time.sleep(WARM_UP)
    before = sum(map(ask, loads))
    own_before, began, _ = ask(server)
    time.sleep(args.seconds)
    after = sum(map(ask, loads))
    own_after, ended, connections = ask(server)
    messages = after - before + own_after - own_before
    for process, connection in reversed(started):
        connection.send(False)
        process.join(1)
        process.kill()
    wall, user, system = (end - begin for begin, end in zip(began, ended))
    return {
        "rate": messages / wall,
        "user": user / messages * 1e6,
        "system": system / messages * 1e6,
        "cores": (user + system) / wall,
        "connections": connections,
    }


def measure_in_turn(args: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Each number of threads, round by round: what disturbs for a while disturbs all of them."""
    return [[measure(threads, args) for threads in args.threads] for _ in range(args.rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="how many, one measurement for each")
    parser.add_argument("--connections", type=int, default=32, help="in all; the kernel spreads them by a hash")
    parser.add_argument("--loads", type=int, default=1, help="processes that make the load")
    parser.add_argument("--own-load", action="store_true", help="each loop makes its own load, on its own port")
    parser.add_argument("--size", type=int, default=32, help="bytes of a message")
    parser.add_argument("--burst", type=int, default=1024, help="messages in flight on each connection")
    parser.add_argument("--seconds", type=float, default=3, help="how long each measurement takes")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured, in turn; the best counts")
    parser.add_argument("--at-least", type=float, help="without a GIL exit with 1 unless the last scales so well")
    args = parser.parse_args()

    with_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(
        f"CPython {platform.python_version()}, GIL {'on' if with_gil else 'off'}, {os.cpu_count()} cores; "
        f"{args.connections} connections, {args.size} bytes, {args.burst} in flight on each"
        f"{', each loop makes its own load' if args.own_load else ''}\n"
    )
    print("threads  messages/s  scaling  server's cores  us/message    user  kernel  connections of each thread")
    rows = [max(rounds, key=lambda row: row["rate"]) for rounds in zip(*measure_in_turn(args))]
    for threads, row in zip(args.threads, rows):
        scaling = row["rate"] / rows[0]["rate"]
        print(
            f"{threads:7}{row['rate']:12,.0f}{scaling:9.2f}{row['cores']:16.2f}{row['user'] + row['system']:12.2f}"
            f"{row['user']:8.2f}{row['system']:8.2f}  {', '.join(map(str, row['connections']))}",
            flush=True,
        )
    if args.at_least is not None and with_gil:
        print("Not judged: with a GIL threads take turns.")
    elif args.at_least is not None and scaling < args.at_least:
        one, many = args.threads[0], args.threads[-1]
        sys.exit(f"{many} threads do {scaling:.2f} times the work of {one}, expected {args.at_least} at least")


if __name__ == "__main__":
    main()
