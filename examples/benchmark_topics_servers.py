"""A process of examples/benchmark_topics.py: a server that publishes to thousands of subscribers.

    python benchmark_topics_servers.py LOOP picows|websockets [SEND_LOOP]

It obeys commands on standard input, a line of JSON each, and prints a line for each result, until its input ends.
SEND_LOOP is benchmark_c/send_loop.c as a shared library.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import socket
import struct
import sys
import time
from typing import Any

from benchmark_peers import Commands, new_loop, obey

SAMPLE_INTERVAL = 0.25  # seconds between two looks at the memory
SEND_BUFFER = 16 * 1024  # bytes the kernel may keep for a stalled subscriber: it shall not hide for long that he is
STATS_AFTERWARDS = 0.2  # seconds in which what is under way arrives


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock


def resident_kib() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


class Server:
    """What both libraries have in common."""

    async def pin(self, core: int) -> None:
        os.sched_setaffinity(0, {core})

    async def publish(self, way: str, size: int, times: int) -> tuple[float, int]:
        """Processor time that it took, kernel included, and how many took the message."""
        message, taken = bytes(size), 0
        send = getattr(self, way)
        before = time.process_time()
        for _ in range(times):
            taken += send(message)
        # uvloop writes for others at the end of its turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return time.process_time() - before, taken

    def commands(self) -> Commands:
        return {"pin": self.pin, "serve": self.serve, "publish": self.publish}

    async def serve(self) -> int:
        raise NotImplementedError


class Websockets(Server):
    def __init__(self) -> None:
        self.connections: set[Any] = set()

    async def serve(self) -> int:
        from websockets.asyncio.server import ServerConnection, serve

        async def handler(connection: ServerConnection) -> None:
            self.connections.add(connection)
            await connection.wait_closed()

        sock = listening_socket()
        self.server = await serve(handler, sock=sock, compression=None, ping_interval=None)
        return sock.getsockname()[1]

    def broadcast(self, message: bytes) -> int:
        from websockets.asyncio.server import broadcast

        broadcast(self.connections, message)
        return len(self.connections)


class Picows(Server):
    """The path "/7" is a subscriber of topic 7, "/all" is one of all topics, and stalls."""

    def __init__(self, send_loop: str) -> None:
        from picows import WSTopics

        self.topics = WSTopics()
        self.names: list[str] = []
        self.transports: list[Any] = []
        self.stalled: list[Any] = []
        self.send_to_all = ctypes.CDLL(send_loop).send_to_all
        self.send_to_all.restype = ctypes.c_size_t
        self.frames: dict[int, bytes] = {}
        self.sockets: Any = None

    async def serve(self, topics: int) -> int:  # type: ignore[override]
        from picows import WSListener, WSTransport, WSUpgradeRequest, ws_create_server

        def subscribe(transport: WSTransport, path: str) -> None:
            self.transports.append(transport)
            names = self.names
            if path == "/all":
                transport.underlying_transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                self.stalled.append(transport)
            else:
                names = [self.names[int(path[1:])]]
            for name in names:
                self.topics.subscribe(transport, name)

        class Subscriber(WSListener):
            def __init__(self, path: str) -> None:
                self.path = path

            def on_ws_connected(self, transport: WSTransport) -> None:
                subscribe(transport, self.path)

        def accept(request: WSUpgradeRequest) -> WSListener:
            return Subscriber(request.path.decode())

        self.names = [f"topic.{number}" for number in range(topics)]
        sock = listening_socket()
        self.server = await ws_create_server(accept, sock=sock)
        return sock.getsockname()[1]

    # Ways to publish

    def publish_topic(self, message: bytes) -> int:
        from picows import WSMsgType

        return self.topics.publish(self.names[0], WSMsgType.BINARY, message)

    def broadcast(self, message: bytes) -> int:
        from picows import WSMsgType, ws_broadcast

        return ws_broadcast(self.transports, WSMsgType.BINARY, message)

    def bare(self, message: bytes) -> int:
        """By nothing but C, to the very same sockets."""
        size = len(message)
        if size not in self.frames:
            head = struct.pack("!BB", 0x82, size) if size < 126 else struct.pack("!BBH", 0x82, 126, size)
            self.frames[size] = head + message
        if self.sockets is None:
            numbers = [each.underlying_transport.get_extra_info("socket").fileno() for each in self.transports]
            self.sockets = (ctypes.c_int * len(numbers))(*numbers)
        frame = self.frames[size]
        return self.send_to_all(self.sockets, len(self.sockets), frame, len(frame))

    # Load

    async def load(self, size: int, keys: int, rate: float, seconds: float) -> dict[str, Any]:
        """Publish at a steady rate, to the topics in turn and under the keys in turn."""
        from picows import WSMsgType

        topics, padding, total = len(self.names), bytes(size - 16), int(rate * seconds)
        memory: list[tuple[float, float]] = []
        watching = asyncio.ensure_future(self._watch(memory))
        number = delivered = 0
        late = 0.0
        cpu, begin = time.process_time(), time.monotonic()
        while number < total:
            # Few at once, when it is late: subscribers and timers have their turn in between.
            due = min(total, int((time.monotonic() - begin) * rate) + 1, number + 5)
            late = max(late, time.monotonic() - begin - number / rate)
            while number < due:
                topic = number % topics
                message = struct.pack("=QII", time.monotonic_ns(), number, number // topics) + padding
                delivered += self.topics.publish(self.names[topic], WSMsgType.BINARY, message, latest=number % keys)
                number += 1
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        elapsed = time.monotonic() - begin
        watching.cancel()
        cpu = time.process_time() - cpu
        await asyncio.sleep(STATS_AFTERWARDS)
        stalled = [transport.stats() for transport in self.stalled]
        return {
            "published": total,
            "rate": total / elapsed,
            "busy": cpu / elapsed,
            "late": late,
            "delivered": delivered,
            "memory": memory,
            "replaced": [each.replaced for each in stalled],
            "waiting": [each.queued for each in stalled],
            "most_waiting": max((each.max_queued for each in stalled), default=0),
        }

    async def _watch(self, memory: list[tuple[float, float]]) -> None:
        while True:
            memory.append((time.monotonic(), resident_kib()))
            await asyncio.sleep(SAMPLE_INTERVAL)

    # The end

    async def shutdown(self, size: int, burst: int, rate: float, spread: float) -> dict[str, Any]:
        """Publish a burst to each topic and go away; publish to those who are left meanwhile, to the topics in turn."""
        from picows import WSCloseCode, WSMsgType

        padding, topics, sent, delivered = bytes(size - 16), len(self.names), 0, 0

        def publish() -> int:
            nonlocal sent
            message = struct.pack("=QII", time.monotonic_ns(), sent, sent // topics) + padding
            sent += 1
            return self.topics.publish(self.names[(sent - 1) % topics], WSMsgType.BINARY, message)

        for _ in range(burst * topics):
            delivered += publish()
        cpu, begin = time.process_time(), time.monotonic()
        leaving = asyncio.ensure_future(self.server.shutdown(WSCloseCode.SERVICE_RESTART, spread=spread))
        while not leaving.done():
            await asyncio.wait([leaving], timeout=1 / rate)
            delivered += publish()
        closed, aborted = leaving.result()
        return {
            "closed": closed,
            "aborted": aborted,
            "published": sent,
            "delivered": delivered,
            "seconds": time.monotonic() - begin,
            "cpu": time.process_time() - cpu,
        }

    def commands(self) -> Commands:
        return {**super().commands(), "load": self.load, "shutdown": self.shutdown}


def main(loop: str, library: str, *arguments: str) -> None:
    event_loop = new_loop(loop)
    asyncio.set_event_loop(event_loop)
    server = Picows(*arguments) if library == "picows" else Websockets()
    event_loop.run_until_complete(obey(server.commands()))


if __name__ == "__main__":
    main(*sys.argv[1:])
