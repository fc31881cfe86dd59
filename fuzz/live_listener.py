"""The listener of the live fuzzer: inside every callback it does what a listener may do, drawn from its seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from live_wire import BINARY, CONTINUATION, LARGEST, TEXT, Assembler, Damaged, Entry, Key, Ledger, keys_in, make_chunk

from picows import WSError, WSFrame, WSListener, WSMsgType, WSProtocolError, WSSlowPeerError, WSTransport, ws_broadcast

OURS = "raised by the fuzzer"
DEEPEST = 4


class Raised(Exception):
    """What a callback raises here."""


def is_ours(error: BaseException | None) -> bool:
    return error is not None and (OURS in error.args or getattr(error, "message", None) == OURS)


def is_exit(error: BaseException | None) -> bool:
    """What goes to the event loop, and out of it."""
    return isinstance(error, (KeyboardInterrupt, SystemExit)) and is_ours(error)


class World(Protocol):
    """What the listeners of one event loop share."""

    live: list[Side]
    broadcasts: int  # that are under way
    judging: int  # frames that may be pongs: what is read meanwhile would overtake them

    def found(self, index: int, text: str) -> None: ...
    def run_nested(self, side: Side) -> None: ...
    def run_again(self, side: Side) -> None: ...
    def watch(self, thing: object, index: int) -> None: ...
    def stalled_since(self, moment: float) -> bool: ...


class Side:
    """One end of a connection that is picows: what it did, and what came."""

    def __init__(self, world: World, chance: random.Random, index: int, origin: int, *, wildness: float, sends: float) -> None:
        self.world, self.chance, self.index, self.origin = world, chance, index, origin
        self.numbers = 0
        self.depth = 0
        self.budget = 150
        self.bytes_left = chance.choice([20_000, 300_000, 1_000_000, 3_000_000])
        self.sent, self.pings = Ledger(), Ledger()
        self.came: list[Key] = []
        self.problems: list[str] = []
        self.transport: WSTransport | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pauses = 0
        self.close_seen = False
        self.ends_by_exit = False  # uvloop's own transports are aborted when a callback exits, and keep the exit
        self.connected = self.disconnected = False
        self.fragmented = False  # a message is under way, ...
        self.fragments: list[Entry] = []  # ... of these chunks
        self.quiet = False  # sends nothing any more: nobody knows whether a fragment was taken
        self.may_abort = False  # an end that is not graceful is possible, or was asked for
        self.stopped = False  # takes nothing any more
        self.inbound_is_whole = True  # what comes is not damaged
        self.assembles = False
        self.assembler = Assembler()
        self.external: list[bytearray] = []
        self.frame: WSFrame | None = None  # that of the callback which is running
        self.frames: list[WSFrame] = []
        self.views: list[tuple[memoryview, bytes]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.send_rate = sends
        self.set_wildness(wildness)

    def set_wildness(self, wildness: float) -> None:
        weights = [weight * (wildness if is_wild else 1) for _, weight, is_wild in _ACTIONS]
        self._actions = [action for action, _, _ in _ACTIONS]
        self._weights = [sum(weights[: i + 1]) for i in range(len(weights))]
        self.wildness = wildness

    def found(self, text: str) -> None:
        self.world.found(self.index, f"{text} ({self})")

    def __str__(self) -> str:
        state = self.transport
        kind = "?" if state is None else "client" if state.is_client_side else "server"
        return f"picows {kind} {self.origin:x}, wildness {self.wildness}"

    # What callbacks do

    def act(self, most: int = 3) -> None:
        """Do a few things, each of which may run callbacks that do more."""
        if self.depth >= DEEPEST or self.budget <= 0 or self.transport is None:
            return
        self.depth += 1
        try:
            for _ in range(self.chance.randrange(most + 1)):
                self.budget -= 1
                (action,) = self.chance.choices(self._actions, cum_weights=self._weights)
                self.do(action)
        finally:
            self.depth -= 1

    def do(self, action: Callable[[Side], None]) -> None:
        try:
            action(self)
        except WSSlowPeerError:
            pass
        except BaseException as error:
            if is_ours(error):
                self.stopped |= not is_exit(error)
                self.may_abort |= is_exit(error) and self.ends_by_exit
                raise
            self.found(f"{action.__name__} raised: {''.join(traceback.format_exception(type(error), error, error.__traceback__))}")

    def chunk(self, size: int) -> tuple[Key, bytes]:
        self.numbers += 1
        key = Key(self.origin, self.numbers)
        return key, make_chunk(key, size, self.chance)

    def some_size(self) -> int:
        chance = self.chance
        most = chance.choices([100, 2000, 9000, 30_000, 70_000, 300_000, LARGEST], [40, 20, 15, 12, 8, 3, 0.2])[0]
        size = min(chance.randrange(most + 1), max(self.bytes_left, 0))
        self.bytes_left -= size
        return size

    def send_data(self, payload: Any, keys: list[Key], *, fin: bool = True) -> None:
        """One frame: the start of a message, or the rest of the one that is under way."""
        transport = self.transport
        if self.quiet or transport is None:
            return
        if not fin and self.world.broadcasts:
            fin = True
        before = self.fragmented
        if not before:
            self.fragments = []
        kind = CONTINUATION if before else self.chance.choice([TEXT, BINARY])
        compress = self.chance.choice([None, None, True, False])
        entries = [self.sent.open(key) for key in keys]
        self.fragments += entries
        taken: bool | None = None
        self.fragmented = not fin
        try:
            taken = transport.send(WSMsgType(kind), payload, fin, compress=compress)
        except WSSlowPeerError:
            taken = False
        finally:
            for entry in entries:
                entry.taken = taken
            if taken is False:
                self.fragmented = before
            elif taken is None and (before or not fin):
                self.quiet = True

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None] | None:
        if self.loop is None or self.loop.is_closed():
            work.close()
            return None
        task = self.loop.create_task(self._guarded(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began
        return task

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (WSError, ConnectionError):
            pass
        except BaseException as error:
            if not is_ours(error) and not isinstance(error, asyncio.CancelledError):
                self.found("a task raised: " + "".join(traceback.format_exception(type(error), error, error.__traceback__)))

    # What comes

    def take(self, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if not self.inbound_is_whole:
            return
        try:
            if self.assembles and not frame.msg_type & 8:
                if not frame.fin or frame.rsv1:
                    raise Damaged(f"not a whole message: {frame}")
                self.came += keys_in(payload)
                return
            message = self.assembler.feed(
                int(frame.msg_type), payload, frame.fin, frame.rsv1 << 2 | frame.rsv2 << 1 | frame.rsv3)
            if message is not None and not message[0] & 8:
                self.came += keys_in(message[1])
        except Damaged as error:
            self.found(f"received: {error}")
            self.inbound_is_whole = False

    def keep(self, frame: WSFrame) -> None:
        chance = self.chance
        if chance.random() < 0.1 and len(self.views) < 8:
            view = chance.choice([memoryview, WSFrame.get_payload_as_memoryview])(frame)
            self.views.append((view, bytes(view)))

    def check_kept(self) -> None:
        for view, content in self.views:
            if bytes(view) != content:
                self.found("a view of a frame does not hold its bytes any more")

    def check_frames(self) -> None:
        for frame in self.frames:
            try:
                frame.get_payload_as_bytes()
            except RuntimeError:
                continue
            self.found("a frame was used after its callback, and raised nothing")
        self.frames.clear()

    def fault_of(self, came: list[Key], complete: bool) -> str | None:
        """What is wrong with the data that came of what was sent."""
        if self.fragmented:
            for entry in self.fragments:
                entry.taken = entry.taken and None  # nobody sees the begin of a message
        return self.sent.fault(came, complete)

    def ended(self) -> None:
        """Let go of all that was kept."""
        self.check_kept()
        self.check_frames()
        self.views.clear()
        for task in list(self.tasks):
            task.cancel()
        self.external.clear()


class Anything(WSListener):
    """All callbacks of a side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        side.world.watch(self, side.index)

    def on_ws_connected(self, transport: WSTransport) -> None:
        side = self.side
        if side.connected:
            side.found("on_ws_connected was called twice")
        side.connected = True
        side.transport, side.loop = transport, asyncio.get_running_loop()
        side.world.live.append(side)
        side.world.watch(transport, side.index)
        limits = side.chance.choice([None, None, 0, 1, 1000, 30_000])
        if limits is not None:
            transport.underlying_transport.set_write_buffer_limits(limits)
        side.act()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        side = self.side
        if side.disconnected:
            side.found("on_ws_frame was called after on_ws_disconnected")
        side.take(frame)
        side.keep(frame)
        outer, side.frame = side.frame, frame
        try:
            if frame.msg_type == WSMsgType.CLOSE:
                side.stopped = side.close_seen = True
                if side.chance.random() < 0.5:
                    side.do(send_close)
                    side.do(disconnect)
            if side.chance.random() < side.send_rate:
                side.act()
        finally:
            side.frame = outer
            if side.chance.random() < 0.05:
                side.frames = [*side.frames[-2:], frame]

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        side = self.side
        if side.disconnected or not side.connected:
            side.found(f"on_ws_disconnected was called, connected: {side.connected}, disconnected: {side.disconnected}")
        side.disconnected = True
        with contextlib.suppress(ValueError):
            side.world.live.remove(side)
        side.act()

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        super().send_user_specific_ping(transport)
        self.side.act(1)

    def is_user_specific_pong(self, frame: WSFrame) -> Any:
        side = self.side
        side.world.judging += 1
        try:
            side.act(1)
        except BaseException:
            side.inbound_is_whole = False  # nobody will see this frame
            raise
        finally:
            side.world.judging -= 1
        return super().is_user_specific_pong(frame)

    def pause_writing(self) -> None:
        self.side.pauses += 1
        self.side.act()

    def resume_writing(self) -> None:
        self.side.act()


class Quiet(Anything):
    """One that leaves the callbacks about writing as they are."""

    pause_writing = WSListener.pause_writing  # type: ignore[assignment]
    resume_writing = WSListener.resume_writing  # type: ignore[assignment]


# The actions


def send(side: Side) -> None:
    key, payload = side.chunk(side.some_size())
    form = side.chance.randrange(5)
    fin = side.chance.random() < 0.85
    if form == 0:
        side.send_data(payload.decode(), [key], fin=fin)
    elif form == 1:
        buffer = bytearray(payload)
        side.send_data(buffer, [key], fin=fin)
        buffer[:] = bytes(len(buffer))  # it is ours again
    elif form == 2:
        view = memoryview(payload)
        side.send_data(view, [key], fin=fin)
        view.release()
    else:
        side.send_data(payload, [key], fin=fin)


def send_burst(side: Side) -> None:
    for _ in range(side.chance.randrange(2, 12)):
        send(side)


def send_nothing(side: Side) -> None:
    side.send_data(side.chance.choice([None, b"", ""]), [])


def echo(side: Side) -> None:
    """Send a frame, or a view of one, as it is."""
    if (frame := side.frame) is not None:
        payload: Any = frame if frame.msg_type & 8 == 0 and frame.fin else None
    else:
        payload = side.chance.choice(side.views)[0] if side.views else None
    if payload is None or memoryview(payload).nbytes > side.bytes_left:
        return
    try:
        keys = keys_in(bytes(payload))
    except Damaged:
        return
    side.bytes_left -= memoryview(payload).nbytes
    side.send_data(payload, keys)


def send_external(side: Side) -> None:
    transport = side.transport
    if side.fragmented or side.quiet or transport is None:
        return
    key, payload = side.chunk(side.some_size())
    offset = side.chance.randrange(14, 40)
    buffer = bytearray(offset) + payload
    side.external = [*side.external[-3:], buffer]
    entry = side.sent.open(key)
    try:
        entry.taken = transport.send_reuse_external_bytearray(WSMsgType.BINARY, buffer, offset)
    except WSSlowPeerError:
        entry.taken = False


def resize_external(side: Side) -> None:
    for buffer in side.external:
        with contextlib.suppress(BufferError):
            if side.chance.random() < 0.5:
                buffer.clear()
            else:
                buffer += bytes(200_000)
    side.external.clear()


def send_control(side: Side) -> None:
    key, payload = side.chunk(side.chance.randrange(90))
    entry = side.pings.open(key)
    transport = side.transport
    assert transport is not None
    kind = side.chance.randrange(3)
    if kind == 0:
        transport.send_ping(payload)
    elif kind == 1:
        transport.send_pong(payload)
    else:
        entry.taken = transport.send(WSMsgType.PING, payload)


def broadcast(side: Side) -> None:
    world, chance = side.world, side.chance
    able = [other for other in world.live if not other.fragmented and not other.quiet and other.transport is not None]
    targets = [other for other in able if other is side or chance.random() < 0.1]
    key, payload = side.chunk(side.some_size())
    entries = [(other.sent, other.sent.open(key)) for other in targets]
    world.broadcasts += 1
    taken = None
    try:
        taken = ws_broadcast([other.transport for other in targets], WSMsgType.TEXT, payload,
                             compress=chance.choice([None, True, False]))
    finally:
        world.broadcasts -= 1
        for ledger, entry in entries:
            entry.until = len(ledger.entries) - 1
            entry.taken = True if taken == len(targets) else False if taken == 0 else None


def cork(side: Side) -> None:
    assert side.transport is not None
    with side.transport.cork():
        side.act()
        if side.chance.random() < 0.3:
            send_burst(side)
        if side.chance.random() < 0.02 * side.wildness:
            raise Raised(OURS)


def flush(side: Side) -> None:
    assert side.transport is not None
    side.transport.flush()


def send_close(side: Side) -> None:
    assert side.transport is not None
    code, reason = side.chance.choice([(0, None), (1000, None), (1000, "bye"), (3000, "x" * 123), (4999, b"\xc3\xa9")])
    side.transport.send_close(code, reason)


def disconnect(side: Side) -> None:
    side.stopped = True
    assert side.transport is not None
    side.transport.disconnect()


def abort(side: Side) -> None:
    side.stopped = side.may_abort = True
    assert side.transport is not None
    side.transport.disconnect(graceful=False)


def close(side: Side) -> None:
    side.stopped = side.may_abort = True
    assert side.transport is not None
    task = side.spawn(side.transport.close(1000, "closed", timeout=side.chance.choice([0.01, 1, 5])))
    if task is not None and side.loop is not None and side.chance.random() < 0.3:
        side.loop.call_later(side.chance.choice([0, 0.01]), task.cancel)


def fail(side: Side) -> None:
    side.stopped = True
    chance = side.chance
    raise chance.choice([
        Raised(OURS), asyncio.CancelledError(OURS), WSProtocolError(1008, OURS), WSProtocolError(4000, OURS),
        WSProtocolError(1005, OURS), WSProtocolError("nonsense", OURS), GeneratorExit(OURS)])  # type: ignore[arg-type]


def leave(side: Side) -> None:
    """To the event loop, and out of it; the connection stays open."""
    if side.chance.random() < 0.5:
        sys.exit(OURS)
    raise KeyboardInterrupt(OURS)


def cancel_tasks(side: Side) -> None:
    for task in list(side.tasks):
        if side.chance.random() < 0.5:
            task.cancel()


def run_nested(side: Side) -> None:
    side.world.run_nested(side)


def run_again(side: Side) -> None:
    if not side.world.judging:
        side.world.run_again(side)


def drop_views(side: Side) -> None:
    side.check_kept()
    del side.views[: side.chance.randrange(3)]


def use_old_frames(side: Side) -> None:
    if side.frame is None and side.depth == 1:
        side.check_frames()


def pause_reading(side: Side) -> None:
    assert side.transport is not None
    underlying = side.transport.underlying_transport

    def resume() -> None:
        if not underlying.is_closing() and not underlying.is_reading():
            underlying.resume_reading()

    if not side.disconnected and not underlying.is_closing() and side.loop is not None:
        underlying.pause_reading()
        side.loop.call_later(0.02, resume)


def measure(side: Side) -> None:
    assert side.transport is not None
    task = side.spawn(side.transport.measure_roundtrip_time(side.chance.randrange(4)))
    if task is not None and side.chance.random() < 0.6:
        side.spawn(_cancel_after(task, side.chance.randrange(8)))


async def _cancel_after(task: asyncio.Task[None], steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()


def wait(side: Side) -> None:
    assert side.transport is not None
    side.spawn(side.transport.wait_disconnected())


def set_limits(side: Side) -> None:
    assert side.transport is not None
    if not side.transport.underlying_transport.is_closing():
        side.transport.underlying_transport.set_write_buffer_limits(side.chance.choice([0, 1, 5000, 65536]))


def look(side: Side) -> None:
    transport = side.transport
    assert transport is not None
    if transport.write_buffer_size < 0:
        side.found("write_buffer_size is negative")
    str(transport.close_handshake)
    transport.notify_user_specific_pong_received()


def misuse(side: Side) -> None:
    """Nothing is sent."""
    assert side.transport is not None
    if not side.transport.send(WSMsgType.PONG, None):
        return  # a connection that is ending looks at nothing
    kind = side.chance.randrange(4)
    try:
        if kind == 0:
            side.transport.send(WSMsgType.PING, bytes(126))
        elif kind == 1:
            side.transport.send_close(1006, None)
        elif kind == 2:
            side.transport.send(WSMsgType.TEXT, 5)  # type: ignore[arg-type]
        else:
            side.transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(20), 13)
    except (TypeError, ValueError):
        return
    side.found(f"misuse {kind} raised nothing")


def act_elsewhere(side: Side) -> None:
    other = side.chance.choice(side.world.live) if side.world.live else side
    if other.transport is not None:
        other.do(side.chance.choice([send, send, send_burst, flush, cork, send_control]))


def act_in_task(side: Side) -> None:
    async def later() -> None:
        await asyncio.sleep(side.chance.choice([0, 0, 0.005]))
        side.act()

    side.spawn(later())


_Action = Callable[[Side], None]
_ACTIONS: list[tuple[_Action, float, bool]] = [  # and how often; the last ones as often as the side is wild
    (send, 30, False), (send_burst, 8, False), (send_nothing, 2, False), (echo, 15, False), (send_external, 8, False),
    (resize_external, 5, False), (send_control, 6, False), (broadcast, 3, False), (cork, 6, False), (flush, 3, False),
    (drop_views, 3, False), (use_old_frames, 2, False), (set_limits, 2, False), (look, 2, False), (act_elsewhere, 3, False),
    (act_in_task, 6, False), (measure, 1, False), (misuse, 1, False), (wait, 1, False), (cancel_tasks, 1, False),
    (pause_reading, 1, True), (run_nested, 0.4, True), (run_again, 2, True), (leave, 1, True), (fail, 0.7, True),
    (send_close, 0.5, True), (disconnect, 0.5, True), (abort, 0.2, True), (close, 0.4, True),
]


def shrink_send_buffer(sock: socket.socket, size: int) -> None:
    if size:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
