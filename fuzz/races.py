"""Event loops in several threads that share all that threads may share, at the same time.

Each loop has a server, and clients that go to the servers of all threads. Views are read and released in other threads; the last
reference to a connection is let go in another one; the connections of a server are counted, listed and looked at by threads that
are not its own, and what these may not do has to be refused; broadcasts are asked for across threads; servers shut down and
their threads end, while others go on. Every message carries a number and a checksum.

    python fuzz/races.py --seconds 30 [--threads 4] [--seed 7] [--loops asyncio,uvloop]

It finds most under ThreadSanitizer on a free-threaded Python (`make races`), and runs everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import random
import sys
import threading
import time
import traceback
import weakref
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from live_socket import client_tls, server_tls
from live_wire import BINARY, TEXT
from soak_messages import Damaged, Fault, Messages, Numbers

from picows import (
    WSDeflate,
    WSFrame,
    WSListener,
    WSMsgType,
    WSServer,
    WSTopics,
    WSTransport,
    ws_broadcast,
    ws_connect,
    ws_create_server,
)
from picows.websockets.asyncio.client import connect
from picows.websockets.exceptions import ConnectionClosed

LOOPS = [name for name in ("asyncio", "uvloop") if importlib.util.find_spec(name)]
HOST = "127.0.0.1"
SHARED_MESSAGE = b"!" + b"the same object for all threads " * 40
PATIENCE = 120.0  # seconds that an answer may take: under a sanitizer, on a machine that does other work
LIFE = 1.0  # seconds of a loop and its thread
DEFLATE = WSDeflate()
LOOKERS = 2  # threads without a loop


class Shared:
    """What all threads reach. The collections are the interpreter's own, each use of which is one step."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.seed = arguments.seed
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.views: deque[tuple[memoryview, int]] = deque(maxlen=64)
        self.dropped: deque[object] = deque(maxlen=64)
        self.servers: dict[Home, str] = {}
        self.watched: deque[weakref.ref[Any]] = deque(maxlen=5000)
        self.tls = server_tls(), client_tls()
        self.counts = dict.fromkeys(("messages", "connections", "looks", "views"), 0)
        self._visits: Counter[str] = Counter()  # by URLs: how many are connecting there
        self._lock = threading.Lock()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    @contextlib.contextmanager
    def visit(self, chance: random.Random) -> Iterator[str]:
        """The URL of some server, which goes on at least until the block ends."""
        with self._lock:
            if not self.servers:
                raise ConnectionResetError("the last server has gone")
            url = chance.choice(list(self.servers.values()))
            self._visits[url] += 1
        try:
            yield url
        finally:
            with self._lock:
                self._visits[url] -= 1

    async def retire(self, home: Home) -> None:
        """Show the server to nobody any more, and wait for those who are connecting to it."""
        with self._lock:
            url = self.servers.pop(home)
        while self._visits[url]:
            await asyncio.sleep(0.01)

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"FOUND {text}", flush=True)


class Home:
    """An event loop, its thread's, and the server there."""

    def __init__(self, shared: Shared, number: int, kind: str) -> None:
        self.shared, self.number, self.kind = shared, number, kind
        self.chance = random.Random(f"{shared.seed}/{number}")
        self.loop: Any
        self.server: WSServer
        self.topics = WSTopics()

    def run(self) -> None:
        loop = importlib.import_module(self.kind).new_event_loop()
        loop.set_exception_handler(self._on_loop_error)
        try:
            loop.run_until_complete(self._live(loop))
        except Exception:
            self.shared.fault(traceback.format_exc())
        finally:
            loop.close()

    def _on_loop_error(self, loop: Any, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), type):  # of aiofastnet: a client has gone during the TLS handshake
            self.shared.fault(f"the loop's exception handler was called: {context}")

    async def _live(self, loop: Any) -> None:
        self.loop = loop
        secure = self.chance.random() < 0.3
        compression = DEFLATE if self.chance.random() < 0.4 else None
        self.server = await ws_create_server(
            lambda request: Echo(self), HOST, 0, ssl=self.shared.tls[0] if secure else None, compression=compression,
            websocket_handshake_timeout=PATIENCE)
        port = self.server.sockets[0].getsockname()[1]
        self.shared.servers[self] = f"{'wss' if secure else 'ws'}://{HOST}:{port}/"
        try:
            end = time.monotonic() + self.chance.uniform(0.3, 1) * LIFE
            talks = [asyncio.ensure_future(self._talk(number, end)) for number in range(6)]
            while time.monotonic() < end:
                self.broadcast()
                other = self.chance.choice(list(self.shared.servers))
                with contextlib.suppress(RuntimeError):  # its loop may have been closed
                    other.loop.call_soon_threadsafe(other.broadcast)
                await asyncio.sleep(0.01)
        finally:
            await self.shared.retire(self)
        await asyncio.wait(talks)
        await self.server.shutdown(timeout=PATIENCE)
        self.server.close()

    def broadcast(self) -> None:
        ws_broadcast(self.server.connections, WSMsgType.BINARY, SHARED_MESSAGE)
        self.topics.publish("shared", WSMsgType.BINARY, SHARED_MESSAGE, latest=self.chance.choice([None, "key"]))

    async def _talk(self, number: int, end: float) -> None:
        """One connection after the other, to the servers of all threads."""
        while time.monotonic() < end:
            try:
                await (self._talk_by_coroutines if number == 0 else self._talk_once)(self.number * 16 + number)
            except (ConnectionError, ConnectionClosed):
                pass  # the server has shut down, or the last one has
            except (Fault, Damaged) as error:
                self.shared.fault(str(error))
            except Exception:
                self.shared.fault(traceback.format_exc())

    async def _talk_by_coroutines(self, origin: int) -> None:
        numbers, messages = Numbers(origin), Messages(origin, self.chance)
        with self.shared.visit(self.chance) as url:
            tls = {"ssl": self.shared.tls[1]} if url.startswith("wss") else {}
            connection = await connect(url, proxy=None, open_timeout=PATIENCE, close_timeout=PATIENCE, **tls)
        async with connection:
            self.shared.count("connections")
            for _ in range(self.chance.randrange(20)):
                await connection.send(messages.make(500))
                messages.last += 1
                while numbers.last != messages.last:
                    came = await asyncio.wait_for(connection.recv(), PATIENCE)
                    if came != SHARED_MESSAGE:
                        numbers.take(came)

    async def _talk_once(self, origin: int) -> None:
        chance, shared = self.chance, self.shared
        listener = Client(self, Numbers(origin))
        with shared.visit(chance) as url:
            tls = shared.tls[1] if url.startswith("wss") else None
            transport, _ = await ws_connect(
                lambda: listener, url, ssl_context=tls, compression=DEFLATE, websocket_handshake_timeout=PATIENCE,
                connect_timeout=PATIENCE)
        shared.count("connections")
        messages = Messages(origin, chance)
        for _ in range(chance.randrange(20)):
            for _ in range(chance.randrange(8)):
                message = messages.make(chance.choice([10, 500, 20_000]))
                messages.last += transport.send(WSMsgType.BINARY, message)
            await asyncio.sleep(0)
        while listener.numbers.last != messages.last and not transport.is_disconnected and transport.close_handshake is None:
            listener.progress.clear()
            await asyncio.wait_for(listener.progress.wait(), PATIENCE)
        if chance.random() < 0.5:
            await transport.close(timeout=PATIENCE)
        else:
            transport.disconnect(graceful=chance.random() < 0.5)
        await asyncio.wait_for(transport.wait_disconnected(), PATIENCE)


class Kept(WSListener):
    """Hands what others may have to others."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def on_ws_connected(self, transport: WSTransport) -> None:
        shared = self.home.shared
        self.transport = transport
        shared.watched.append(weakref.ref(transport))
        shared.watched.append(weakref.ref(self))

    def keep(self, frame: WSFrame) -> None:
        self.home.shared.count("messages")
        draw = self.home.chance.random()
        if draw < 0.2:
            view = memoryview(frame)
            self.home.shared.views.append((view, zlib.crc32(view)))
        elif draw < 0.22:
            self.home.shared.dropped.append(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.home.shared.dropped.append((self, transport))


class Echo(Kept):
    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self.home.topics.subscribe(transport, "shared")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == BINARY:
            self.keep(frame)
            transport.send(frame.msg_type, frame)


class Client(Kept):
    def __init__(self, home: Home, numbers: Numbers) -> None:
        super().__init__(home)
        self.numbers = numbers
        self.progress = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type not in (TEXT, BINARY):
            self.progress.set()
            return
        self.keep(frame)
        payload = frame.get_payload_as_bytes()
        if payload[:1] == b"!":
            if payload != SHARED_MESSAGE:
                self.home.shared.fault(f"a broadcast of {len(payload)} bytes is damaged")
            return
        try:
            self.numbers.take(payload)
        except (Fault, Damaged) as error:
            self.home.shared.fault(str(error))
        self.progress.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self.progress.set()


def look(shared: Shared) -> None:
    """A thread that owns nothing, and looks at everything."""
    while not shared.stop.is_set():
        with contextlib.suppress(IndexError):
            view, checksum = shared.views.popleft()
            if zlib.crc32(view) != checksum:
                shared.fault(f"a view of {view.nbytes} bytes does not hold what it did")
            view.release()
            shared.count("views")
        with contextlib.suppress(IndexError):
            shared.dropped.popleft()
        for home in list(shared.servers):
            look_at(shared, home.server)
        shared.count("looks")
        time.sleep(0.0005)


def look_at(shared: Shared, server: WSServer) -> None:
    connections = server.connections
    if len(connections) < 0:
        shared.fault(f"the number of connections is {connections!r}")
    for transport in connections:
        attributes = (
            transport.is_disconnected, transport.is_secure, transport.is_close_frame_sent, transport.request.path,
            transport.response.status, transport.subprotocol, transport.compression, transport.close_handshake,
            transport.close_code, transport.close_reason, transport in connections)
        if transport.is_client_side or attributes[3] != b"/" or attributes[4] != 101:
            shared.fault(f"the attributes of a connection are {attributes}")
        for method in (transport.stats, transport.flush, transport.send_close):
            try:
                method()
            except RuntimeError:
                continue
            shared.fault(f"{method.__name__} was not refused in another thread")


def run_loops(shared: Shared, number: int, loops: list[str]) -> None:
    """One loop after the other, each in a thread of its own, whose memory ends with it."""
    turn = 0
    while not shared.stop.is_set():
        home = Home(shared, number + 100 * turn, loops[(number + turn) % len(loops)])
        thread = threading.Thread(target=home.run)
        thread.start()
        thread.join()
        turn += 1


def check_left_over(shared: Shared) -> None:
    shared.views.clear()
    shared.dropped.clear()
    gc.collect()
    left = [thing for reference in shared.watched if (thing := reference()) is not None]
    if left:
        shared.fault(f"{len(left)} objects are left over: {left[:5]}")


def describe(args: Any) -> str:
    """The error that a hook was told of."""
    return "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="how long")
    parser.add_argument("--threads", type=int, default=4, help="with loops")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    parser.add_argument("--loops", default=",".join(LOOPS), help=f"some of {','.join(LOOPS)}")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.dump_traceback_later(arguments.seconds + 2 * PATIENCE, exit=True)
    sys.setswitchinterval(0.0002)
    shared = Shared(arguments)
    threading.excepthook = lambda args: shared.fault(f"a thread failed: {describe(args)}")
    sys.unraisablehook = lambda args: shared.fault(f"exception ignored: {args.err_msg} {args.object!r}: {describe(args)}")
    loops = arguments.loops.split(",")
    threads = [threading.Thread(target=run_loops, args=[shared, number, loops]) for number in range(arguments.threads)]
    threads += [threading.Thread(target=look, args=[shared]) for _ in range(LOOKERS)]
    for thread in threads:
        thread.start()
    shared.stop.wait(arguments.seconds)
    shared.stop.set()
    for thread in threads:
        thread.join()
    check_left_over(shared)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"seed {arguments.seed}, {arguments.threads} threads, the GIL is {'on' if gil else 'off'}: "
          f"{shared.counts}, {len(shared.faults)} faults")
    sys.exit(1 if shared.faults else 0)


if __name__ == "__main__":
    main()
