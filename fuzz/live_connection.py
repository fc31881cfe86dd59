"""One connection of the live fuzzer: its options are drawn, it is opened, lives, is ended, and its account is checked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from typing import Any

from batches import Network
from live_listener import Anything, Quiet
from live_peer import Peer
from live_side import OURS, Action, Raised, Side, World, is_ours
from live_socket import PeerThread

from picows import (
    WSAutoPingStrategy,
    WSDeflate,
    WSError,
    WSProtocolError,
    WSSlowPeerError,
    WSSlowPeerPolicy,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)

PROTOCOL_FAULTS = (1002, 1007, 1009)  # what the fuzzer never closes with itself


class Options:
    """Keyword arguments for ws_connect and ws_create_server, and what follows from them."""

    def __init__(self, chance: random.Random, calm: bool) -> None:
        self.arguments: dict[str, Any] = {
            "websocket_handshake_timeout": 15,
            "coalesce_writes": chance.random() < 0.8,
            "enable_auto_close": chance.random() < 0.6,
            "assemble_messages": chance.random() < 0.3,
            "disconnect_on_exception": chance.random() < 0.6,
            "enable_auto_pong": chance.random() < 0.8,
        }
        self.may_abort = False
        if chance.random() < 0.4:
            self.arguments["compression"] = WSDeflate(
                server_max_window_bits=chance.choice([None, None, 8, 9, 15]),
                client_max_window_bits=chance.choice([None, None, 8, 12]),
                server_no_context_takeover=chance.random() < 0.3,
                client_no_context_takeover=chance.random() < 0.3,
                level=chance.choice([0, 1, 1, 6]),
                min_size=chance.choice([0, 64, 2000]),
            )
        self.assembles = self.arguments["assemble_messages"] or "compression" in self.arguments
        if chance.random() < 0.25:
            policy = chance.choice([WSSlowPeerPolicy.DROP_NEWEST, WSSlowPeerPolicy.RAISE, WSSlowPeerPolicy.DISCONNECT])
            self.arguments.update(max_write_buffer_size=chance.choice([1, 5000, 100_000]), slow_peer=policy)
            self.may_abort |= policy == WSSlowPeerPolicy.DISCONNECT
        if chance.random() < 0.2:
            times = [0.02, 0.1, 8] if not calm else [8]
            self.arguments.update(
                enable_auto_ping=True,
                auto_ping_idle_timeout=chance.choice([0.01, 0.05, 0.2]),
                auto_ping_reply_timeout=chance.choice(times),
                auto_ping_strategy=chance.choice(list(WSAutoPingStrategy)),
            )
            self.may_abort = True
        if chance.random() < 0.15:
            self.arguments["receive_timeout"] = chance.choice([0.02, 0.2, 5])
        if not calm and chance.random() < 0.1:
            self.arguments["max_frame_size"] = chance.choice([100, 3000, 70_000])
        if chance.random() < 0.2:
            self.arguments["read_buffer_init_size"] = chance.choice([1, 1000, 200_000])

    @property
    def refuses_frames(self) -> bool:
        return "max_frame_size" in self.arguments

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items())


def shrink_send_buffer(sock: socket.socket, size: int) -> None:
    if size:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


class LiveConnection:
    """Drawn from a seed: who takes part, with what options, and how it ends."""

    outcome = ""

    def __init__(self, world: World, peers: PeerThread, network: Network, index: int, chance: random.Random,
                 origin: int, actions: list[Action], nested: bool = False) -> None:
        self.world, self.peers, self.network, self.index, self.chance = world, peers, network, index, chance
        self._actions = actions
        self.calm = nested or chance.random() < 0.4
        self.role = "pair" if nested else chance.choices(["server", "client", "pair"], [40, 35, 25])[0]
        self.wildness = 0.2 if nested else chance.choice([0, 0, 0.3, 1, 3])
        self.finale = chance.choices(["disconnect", "close", "send close", "abort", "wait"], [50, 15, 15, 3, 17])[0]
        self.send_buffer = chance.choice([0, 0, 5000, 20_000])
        self.refuses = not self.calm and chance.random() < 0.03
        self.sides: list[Side] = []
        self.options: list[Options] = []
        self.stage = "start"
        self.began = time.monotonic()
        self.peer: Peer | None = None
        if self.role != "pair":
            self.peer = Peer(chance, origin | 3, is_client=self.role == "server", thread=peers, tls=network.tls, calm=self.calm)
        self._origin = origin

    def __str__(self) -> str:
        parts = [f"in {self.stage}", str(self.network), f"role {self.role}", f"finale {self.finale}",
                 f"send buffer {self.send_buffer}", f"refuses {self.refuses}"]
        if self.peer is not None:
            parts.append(f"{self.peer}, read error {self.peer.read_error!r}, CLOSE({self.peer.close_code})")
        for side, options in zip(self.sides, self.options):
            parts.append(f"{side}: {options}, transport {side.transport and side.transport.close_handshake}, "
                         f"connected {side.connected}, disconnected {side.disconnected}, {side.pauses} pauses")
        return "; ".join(parts)

    def _side(self) -> tuple[Side, Options]:
        options = Options(self.chance, self.calm)
        side = Side(self.world, random.Random(self.chance.getrandbits(64)), self.index, self._origin | len(self.sides),
                    actions=self._actions, wildness=self.wildness, sends=self.chance.choice([0, 0.2, 0.6, 1]))
        side.assembles = options.assembles
        side.may_abort = options.may_abort
        if self.peer is not None:
            side.inbound_is_whole = not self.peer.damages
        self.sides.append(side)
        self.options.append(options)
        return side, options

    def _listener(self, side: Side) -> Anything:
        if self.refuses and side.chance.random() < 0.5:
            raise Raised(OURS)
        return (Anything if side.chance.random() < 0.9 else Quiet)(side)

    def abort(self) -> None:
        for side in self.sides:
            if side.transport is not None:
                with contextlib.suppress(Exception):
                    side.transport.underlying_transport.abort()

    async def run(self) -> None:
        server = None
        try:
            if self.role == "server":
                assert self.peer is not None
                server = await self._serve()
                talk = self.peers.run(self.peer.connect(server.sockets[0].getsockname()[1]))
                await self._live(talk)
            elif self.role == "client":
                assert self.peer is not None
                listening = self.peer.listen()
                port = listening.getsockname()[1]
                talk = self.peers.run(self.peer.accept(listening))
                await self._connect(port)
                await self._live(talk)
            else:
                server = await self._serve()
                await self._connect(server.sockets[0].getsockname()[1])
                await self._live(None)
            self.check()
        finally:
            if server is not None:
                server.close()
            for side in self.sides:
                side.ended()

    async def _serve(self) -> asyncio.Server:
        side, options = self._side()

        def factory(request: WSUpgradeRequest) -> Any:
            if self.refuses and side.chance.random() < 0.5:
                return None
            return self._listener(side)

        sock = socket.socket()
        shrink_send_buffer(sock, self.send_buffer)
        sock.bind(("127.0.0.1", 0))
        return await ws_create_server(
            factory, sock=sock, ssl=self.peers.tls[False] if self.network.tls else None,
            use_aiofastnet=self.network.fast, **options.arguments)

    async def _connect(self, port: int) -> None:
        side, options = self._side()

        def make_socket(_: object) -> socket.socket:
            sock = socket.socket()
            shrink_send_buffer(sock, self.send_buffer)
            sock.setblocking(False)
            return sock

        self.stage = "ws_connect"
        try:
            await ws_connect(
                lambda: self._listener(side), f"{'wss' if self.network.tls else 'ws'}://127.0.0.1:{port}/",
                ssl_context=self.peers.tls[True] if self.network.tls else None, socket_factory=make_socket,
                use_aiofastnet=self.network.fast, **options.arguments)
        except BaseException as error:
            if isinstance(error, (GeneratorExit, asyncio.CancelledError)) and not is_ours(error):
                raise
            server = self.sides[0]
            peer_may_go = server.stopped or server.may_abort if self.peer is None else self.peer.ending in ("reset", "vanish")
            expected = is_ours(error) or (isinstance(error, (WSError, OSError)) and (self.refuses or peer_may_go))
            if not expected:
                side.found(f"ws_connect raised {error!r}; {self}")

    async def _live(self, talk: Any) -> None:
        """Wait until the peer has sent its stream, then end what is still open."""
        self.stage = "life"
        life = self.chance.choice([0.0, 0.005, 0.05, 0.2])
        peer = self.peer
        for _ in range(200):
            if all(side.disconnected or not side.connected for side in self.sides) and any(s.connected for s in self.sides):
                break
            if peer is None or peer.sent_everything or (talk is not None and talk.done()):
                break
            await asyncio.sleep(0.005 if _ < 20 else 0.03)
        for side in self.sides:
            if side.connected:
                side.spawn(self._act_outside(side))
        await asyncio.sleep(life)
        self.stage = f"finale {self.finale}"
        sides = [side for side in self.sides if side.connected]
        self.chance.shuffle(sides)
        for side in sides[: 1 if self.chance.random() < 0.7 else 2]:
            await self._end(side)
        self.stage = "wait_disconnected"
        for side in self.sides:
            if side.connected and side.transport is not None:
                await self._ended(side)
        self.stage = "the peer's end"
        if self.peer is not None:
            self.peer.release()
            await asyncio.wrap_future(talk)

    async def _act_outside(self, side: Side) -> None:
        side.act()

    async def _end(self, side: Side) -> None:
        if side.transport is None or side.disconnected:
            return
        finale = self.finale
        if finale == "wait":
            if self.peer is not None and self.peer.ending not in ("wait", "deaf"):
                await asyncio.wait({asyncio.ensure_future(self._ended(side))}, timeout=0.3)
            finale = "disconnect"
        try:
            if finale == "close":
                side.may_abort |= self.peer is None or not self.peer.polite
                side.stopped = True
                await side.transport.close(1000, "done", timeout=10)
            elif finale == "send close":
                side.transport.send_close(1000, "done")
                await asyncio.sleep(0.05)
                side.stopped = True
                side.transport.disconnect()
            else:
                side.stopped = True
                side.may_abort |= finale == "abort"
                side.transport.disconnect(graceful=finale != "abort")
        except BaseException as error:
            if not is_ours(error):
                raise

    async def _ended(self, side: Side) -> None:
        assert side.transport is not None
        try:
            await side.transport.wait_disconnected()
        except WSSlowPeerError:
            pass
        except WSProtocolError as error:
            if not is_ours(error) and self._must_be_understood(side) and error.code in PROTOCOL_FAULTS:
                side.found(f"an undamaged stream was refused: {error!r}")
        except BaseException as error:
            if not is_ours(error):
                raise
        if not side.disconnected:
            side.found("wait_disconnected returned before on_ws_disconnected was called")

    def _must_be_understood(self, side: Side) -> bool:
        return side.inbound_is_whole and not self.options[self.sides.index(side)].refuses_frames

    # The check

    def check(self) -> None:
        if self.peer is not None:
            if self.sides:
                self._check_against_peer(self.peer, self.sides[0])
            return
        if len(self.sides) == 2:
            for sender, receiver in (self.sides, self.sides[::-1]):
                complete = self._arrives_whole(sender, receiver)
                if receiver.inbound_is_whole:
                    self._report(sender, sender.fault_of(receiver.came, complete))

    def _arrives_whole(self, sender: Side, receiver: Side) -> bool:
        """Whether all that one picows sent has to come to the other."""
        if sender.may_abort or receiver.may_abort or not (sender.connected and receiver.connected and receiver.transport):
            return False
        state = receiver.transport.close_handshake
        if state is not None and state.recv is not None:
            return True
        # While the loop stands still a peer seems silent, and may be closed before it has read: a reset answers what it sends.
        quiet = not receiver.sent.entries or not (self.network.tls or self.world.stalled_since(self.began))
        return state is None and not receiver.stopped and quiet

    def _check_against_peer(self, peer: Peer, side: Side) -> None:
        for problem in peer.problems:
            self._report(side, f"the peer saw: {problem}")
        if peer.close_code in PROTOCOL_FAULTS and self._must_be_understood(side) and not peer.problems:
            self._report(side, f"CLOSE({peer.close_code}) for an undamaged stream")
        if not side.connected or peer.problems:
            return
        complete = peer.reads_to_the_end and not side.may_abort and side.disconnected
        self._report(side, side.fault_of(peer.keys, complete))
        self._report(side, side.pings.fault(peer.control_keys, False))
        if side.inbound_is_whole:
            if side.came != peer.sent[: len(side.came)]:
                self._report(side, f"received {side.came}, the peer sent {peer.sent}")
            elif side.close_seen and len(side.came) < len(peer.sent):
                self._report(side, f"received {len(side.came)} messages and CLOSE, the peer sent {len(peer.sent)}")

    def _report(self, side: Side, fault: str | None) -> None:
        if fault is not None:
            side.found(f"{fault}; {self}")
