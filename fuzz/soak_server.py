"""The servers of the soak: they echo, push, broadcast and publish, and end connections when they are asked to.

A client asks by TEXT that begins with an exclamation mark, and is told so. The path says what for it has come:
``/echo/1f`` echoes the messages of origin 1f (hexadecimal).
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from live_socket import server_tls
from live_wire import BINARY, TEXT
from soak_messages import Messages, Numbers
from soak_process import PONG_PATIENCE, Process, Provoked, process_arguments

from picows import (
    WSAutoPingStrategy,
    WSDeflate,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSSlowPeerPolicy,
    WSTopics,
    WSTransport,
    WSUpgradeRequest,
    ws_broadcast,
    ws_create_server,
)
from picows.websockets.asyncio.server import ServerConnection, serve
from picows.websockets.exceptions import ConnectionClosed

PINGS = {"enable_auto_ping": True, "auto_ping_idle_timeout": 15, "auto_ping_reply_timeout": PONG_PATIENCE}
PERIODIC = {**PINGS, "auto_ping_strategy": WSAutoPingStrategy.PING_PERIODICALLY}
# Each is a port. `use_aiofastnet` None: over TLS and on asyncio's loop it is used where it is installed.
ENDPOINTS: dict[str, dict[str, Any]] = {
    "tcp": {"use_aiofastnet": False, **PINGS},
    "tls": {"tls": True, "use_aiofastnet": False, "assemble_messages": True, **PERIODIC},
    "deflate": {"compression": WSDeflate(), "receive_timeout": 300},
    "tls-deflate": {"tls": True, "compression": WSDeflate(server_no_context_takeover=True), **PINGS},
    "drop": {"max_write_buffer_size": 200_000, "slow_peer": WSSlowPeerPolicy.DROP_NEWEST, "use_aiofastnet": False},
    "strict": {"max_write_buffer_size": 200_000, "slow_peer": WSSlowPeerPolicy.DISCONNECT, "coalesce_writes": False},
}
TOPICS = [f"soak.{number}" for number in range(8)]
BROADCAST, LATEST, TOPIC = 0xB0000000, 0xC0000000, 0xD0000000  # origins
KEYS = 8  # of what newer messages replace
SOME_BYTES = (40, 300, 3000)
LEAKED: list[object] = []  # by sabotage


class World:
    """What the connections of the process have in common."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.topics = WSTopics()
        self.listening: set[WSTransport] = set()  # to the broadcasts
        self.watching: set[WSTransport] = set()  # the latest values
        chance = process.chance
        self.broadcasts = Messages(BROADCAST, chance)
        self.values = [Messages(LATEST + key, chance) for key in range(KEYS)]
        self.publications = {name: Messages(TOPIC + number, chance) for number, name in enumerate(TOPICS)}

    async def tell_all(self) -> None:
        """Broadcast, publish and renew values, for ever."""
        process, chance = self.process, self.process.chance
        while True:
            await process.pace.turn(0.05)
            for _ in range(chance.randrange(6)):
                message = self.broadcasts.make(chance.choice(SOME_BYTES))
                self.broadcasts.last += 1
                ws_broadcast(self.listening, WSMsgType.BINARY, message)
            for name in chance.sample(TOPICS, 3):
                messages = self.publications[name]
                message = messages.make(chance.choice(SOME_BYTES))
                messages.last += 1
                self.topics.publish(name, chance.choice([WSMsgType.TEXT, WSMsgType.BINARY]), message)
            for key, messages in enumerate(self.values):
                message = messages.make(chance.choice(SOME_BYTES))
                messages.last += 1
                ws_broadcast(self.watching, WSMsgType.BINARY, message, latest=key)
            process.counts["told"] += 1


class Serving(WSListener):
    """One connection of the server: what was asked is done, what came is checked."""

    def __init__(self, world: World, argument: str) -> None:
        self.world, self.process = world, world.process
        self.argument, self.how = argument, ""
        self.transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.process.counts["connections"] += 1
        self.process.listeners.add(self)
        if self.process.arguments.sabotage == "leak":
            LEAKED.append(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type not in (TEXT, BINARY):
            return
        payload = frame.get_payload_as_bytes()
        self.process.counts["messages"] += 1
        self.process.counts["bytes"] += len(payload)
        if payload[:1] == b"!":
            verb, _, argument = payload[1:].decode().partition(" ")
            getattr(self, f"do_{verb}")(argument)
            return
        with self.process.finding(f"server, {type(self).__name__} {self.argument}"):
            self.process.keeper.offer(frame)
            self.receive(frame, payload)

    def receive(self, frame: WSFrame, payload: bytes) -> None: ...

    def tell(self, text: str) -> None:
        self.transport.send(WSMsgType.TEXT, f"!{text}")

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.argument} {self.how}"

    def do_end(self, how: str) -> None:
        transport, self.how = self.transport, how
        if how == "close":
            self.process.spawn(transport.close(1001, "provoked", timeout=100), "server, close")
        elif how == "close frame":
            transport.send_close(1000, "provoked")
        elif how == "disconnect":
            transport.disconnect()
        elif how == "abort":
            transport.disconnect(graceful=False)
        elif how == "below":
            transport.underlying_transport.abort()
        elif how == "raise":
            raise Provoked("provoked")
        elif how == "refuse":
            raise WSProtocolError(1008, "provoked")


class Echo(Serving):
    """Sends back what comes, in all the ways there are to send."""

    def __init__(self, world: World, argument: str) -> None:
        super().__init__(world, argument)
        self.numbers = Numbers(int(argument, 16))
        self.held_back: bytes | None = None

    def receive(self, frame: WSFrame, payload: bytes) -> None:
        self.numbers.take(payload)
        send = self.transport.send
        if self.process.arguments.sabotage in ("lose", "repeat", "damage", "swap"):
            return self.spoil(payload)
        kind = frame.msg_type
        way = self.process.chance.randrange(6)
        if way == 0:
            send(kind, payload)
        elif way == 1:
            send(kind, payload.decode())
        elif way == 2:
            self.transport.send_reuse_external_bytearray(kind, bytearray(20) + payload, 20)
        elif way == 3:
            with self.transport.cork():
                send(kind, frame)
                self.transport.send_ping(b"corked")
        else:
            send(kind, frame)

    def spoil(self, payload: bytes) -> None:
        """To show that the soak would find it."""
        sabotage = self.process.arguments.sabotage
        messages = [payload]
        if self.held_back is not None:
            messages, self.held_back = [payload, self.held_back], None
        elif self.numbers.last is not None and self.numbers.last % 10 == 5:
            if sabotage == "lose":
                messages = []
            elif sabotage == "repeat":
                messages *= 2
            elif sabotage == "damage":
                messages = [payload[:-1] + bytes([payload[-1] ^ 1])]
            else:
                messages, self.held_back = [], payload
        for message in messages:
            self.transport.send(WSMsgType.BINARY, message)


class Push(Serving):
    """Sends numbered messages until it is told to stop, as many as it is let."""

    heeds_the_mark = True

    def __init__(self, world: World, argument: str) -> None:
        super().__init__(world, argument)
        self.messages = Messages(int(argument, 16), self.process.chance)
        self.stopped = False
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        make_slow(transport)
        self.process.spawn(self.push(), f"server, {type(self).__name__}")

    def pause_writing(self) -> None:
        self.writable.clear()
        self.process.counts["pauses"] += 1

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.stopped = True
        self.writable.set()

    def do_stop(self, _: str) -> None:
        self.stopped = True

    async def push(self) -> None:
        chance, transport = self.process.chance, self.transport
        while not self.stopped:
            await self.process.pace.turn(0.05)
            with transport.cork():
                for _ in range(chance.randrange(1, 24)):
                    if self.heeds_the_mark and not self.writable.is_set():
                        break
                    message = self.messages.make(chance.choice([50, 2000, 12_000]))
                    self.messages.last += transport.send(WSMsgType.BINARY, message)
            if self.heeds_the_mark and chance.random() < 0.5:
                await self.writable.wait()
            elif self.heeds_the_mark:
                await self.drained()
        # This one may find no room, too.
        while not transport.is_disconnected and not transport.send(WSMsgType.TEXT, f"!last {self.messages.last}"):
            await self.drained()

    async def drained(self) -> None:
        try:
            await self.transport.drain()
        except ConnectionError:
            self.stopped = True


class Flood(Push):
    """Does not care whether the peer reads: some of it is dropped, or the peer is."""

    heeds_the_mark = False


class Broadcasts(Serving):
    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self.world.listening.add(transport)
        self.tell(f"joined {self.world.broadcasts.last}")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.world.listening.discard(transport)

    def do_stop(self, _: str) -> None:
        self.world.listening.discard(self.transport)
        self.tell(f"last {self.world.broadcasts.last}")


class Latest(Serving):
    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        make_slow(transport)
        self.world.watching.add(transport)
        self.tell(f"joined {self.numbers()}")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.world.watching.discard(transport)

    def do_stop(self, _: str) -> None:
        self.world.watching.discard(self.transport)
        self.tell(f"last {self.numbers()}")

    def numbers(self) -> str:
        return " ".join(str(messages.last) for messages in self.world.values)


class Raw(Serving):
    """What comes is no good."""


class Topics(Serving):
    def do_subscribe(self, name: str) -> None:
        self.world.topics.subscribe(self.transport, name)
        self.tell(f"subscribed {name} {self.world.publications[name].last}")

    def do_unsubscribe(self, name: str) -> None:
        self.world.topics.unsubscribe(self.transport, name)
        self.tell(f"unsubscribed {name} {self.world.publications[name].last}")


LISTENERS = {kind.__name__.lower(): kind for kind in (Echo, Push, Flood, Broadcasts, Latest, Raw, Topics)}


def make_slow(transport: WSTransport) -> None:
    """Let little fit between the peers, so that what is not read waits here."""
    sock = transport.underlying_transport.get_extra_info("socket")
    sock.setsockopt(1, 7, 16384)  # SOL_SOCKET, SO_SNDBUF; uvloop's socket knows the numbers, too


async def echo_by_coroutine(connection: ServerConnection) -> None:
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


async def work(process: Process) -> None:
    world = World(process)

    def factory(request: WSUpgradeRequest) -> WSListener | None:
        kind, _, argument = request.path.decode().strip("/").partition("/")
        listener = LISTENERS.get(kind)
        return listener and listener(world, argument)

    ports = {}
    servers = []
    for name, options in ENDPOINTS.items():
        options = dict(options)
        tls = options.pop("tls", False)
        server = await ws_create_server(
            factory, "127.0.0.1", 0, ssl=server_tls() if tls else None, websocket_handshake_timeout=100, max_frame_size=64 << 20,
            max_message_size=64 << 20, **options)
        ports[name] = server.sockets[0].getsockname()[1]
        servers.append(server)
    coroutines = await serve(echo_by_coroutine, "127.0.0.1", 0, max_size=None, open_timeout=100, ping_timeout=PONG_PATIENCE)
    ports["coroutines"] = next(iter(coroutines.sockets)).getsockname()[1]
    telling = process.spawn(world.tell_all(), "server, tell_all")
    process.say("ports", ports)
    await process.stop.wait()
    telling.cancel()
    for server in servers:
        report = await server.shutdown(timeout=60)
        if report.aborted:
            process.fault(f"shutdown had to abort {report.aborted} connections")
    coroutines.close()
    await coroutines.wait_closed()


def main() -> None:
    arguments: argparse.Namespace = process_arguments(__doc__).parse_args()
    process = Process(arguments)
    process.run(lambda: work(process))


if __name__ == "__main__":
    main()
