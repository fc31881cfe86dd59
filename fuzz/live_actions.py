"""What the live fuzzer's listeners do, inside of callbacks and of tasks: all that a listener may do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Hashable
from typing import Any

from live_side import OURS, Action, Raised, Side
from live_wire import Damaged, keys_in

from picows import WSMsgType, WSProtocolError, WSSlowPeerError, ws_broadcast


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
    if any(key in side.latest for key in keys):
        return  # it would not be known by which way it has come
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


class Name:
    """A key that does something when it is compared."""

    def __init__(self, name: str, side: Side) -> None:
        self.name, self._side = name, side

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        world = self._side.world
        world.comparing += 1
        try:
            self._side.act(1)
        finally:
            world.comparing -= 1
        return getattr(other, "name", other) == self.name


def some_name(side: Side) -> tuple[str, Hashable]:
    name = side.chance.choice(["a", "b", "c"])
    return name, Name(name, side) if side.chance.random() < 0.1 else name


def send_latest(side: Side) -> None:
    """One or several: those that the peer is too slow for give their places to newer ones."""
    chance, transport = side.chance, side.transport
    assert transport is not None
    for _ in range(chance.choice([1, 1, 2, 10])):
        if side.world.comparing:
            return
        name, latest = some_name(side)
        key, payload = side.chunk(side.some_size())
        form = chance.randrange(3)
        message = payload.decode() if form == 0 else bytearray(payload) if form == 1 else payload
        entry = side.latest.open(name, key)
        try:
            entry.taken = transport.send_latest(latest, chance.choice([WSMsgType.TEXT, WSMsgType.BINARY]), message,
                                                compress=chance.choice([None, None, True, False]))
        except WSSlowPeerError:
            entry.taken = False
        if isinstance(message, bytearray):
            message[:] = bytes(len(message))  # it is ours again


def broadcast_latest(side: Side) -> None:
    world, chance = side.world, side.chance
    if world.comparing:
        return
    targets = [other for other in world.live if other.transport is not None and (other is side or chance.random() < 0.1)]
    name, latest = some_name(side)
    key, payload = side.chunk(side.some_size())
    entries = [(other.latest, other.latest.open(name, key)) for other in targets]
    taken = None
    try:
        taken = ws_broadcast([other.transport for other in targets], WSMsgType.BINARY, payload,
                             compress=chance.choice([None, True, False]), latest=latest)
    finally:
        for ledger, entry in entries:
            entry.until = ledger.last(name)
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
    kind = side.chance.randrange(7)
    try:
        if kind == 0:
            side.transport.send(WSMsgType.PING, bytes(126))
        elif kind == 1:
            side.transport.send_close(1006, None)
        elif kind == 2:
            side.transport.send(WSMsgType.TEXT, 5)  # type: ignore[arg-type]
        elif kind == 3:
            side.transport.send_latest("a", WSMsgType.PING, b"")
        elif kind == 4:
            side.transport.send_latest([], WSMsgType.TEXT, b"")
        elif kind == 5:
            ws_broadcast([side.transport], WSMsgType.TEXT, b"", fin=False, latest="a")
        else:
            side.transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(20), 13)
    except (TypeError, ValueError):
        return
    # A connection that is ending looks at nothing.
    if side.transport.send(WSMsgType.PONG, None):
        side.found(f"misuse {kind} raised nothing")


def act_elsewhere(side: Side) -> None:
    other = side.chance.choice(side.world.live) if side.world.live else side
    if other.transport is not None:
        other.do(side.chance.choice([send, send, send_burst, send_latest, flush, cork, send_control]))


def act_in_task(side: Side) -> None:
    async def later() -> None:
        await asyncio.sleep(side.chance.choice([0, 0, 0.005]))
        side.act()

    side.spawn(later())


ACTIONS: list[Action] = [
    (send, 30, False), (send_burst, 8, False), (send_nothing, 2, False), (echo, 15, False), (send_external, 8, False),
    (resize_external, 5, False), (send_control, 6, False), (broadcast, 3, False), (send_latest, 10, False),
    (broadcast_latest, 3, False), (cork, 6, False), (flush, 3, False), (drop_views, 3, False), (use_old_frames, 2, False),
    (set_limits, 2, False), (look, 2, False), (act_elsewhere, 3, False),
    (act_in_task, 6, False), (measure, 1, False), (misuse, 1, False), (wait, 1, False), (cancel_tasks, 1, False),
    (pause_reading, 1, True), (run_nested, 0.4, True), (run_again, 2, True), (leave, 1, True), (fail, 0.7, True),
    (send_close, 0.5, True), (disconnect, 0.5, True), (abort, 0.2, True), (close, 0.4, True),
]
