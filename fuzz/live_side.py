"""One picows end of a live fuzzer's connection: what it did, what it sent, what came, what it keeps."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Coroutine
from itertools import accumulate
from typing import Any, Protocol

from live_wire import (
    BINARY,
    CONTINUATION,
    LARGEST,
    TEXT,
    Assembler,
    Damaged,
    Entry,
    Key,
    LatestLedger,
    Ledger,
    keys_in,
    make_chunk,
)

from picows import WSError, WSFrame, WSMsgType, WSSlowPeerError, WSTransport

OURS = "raised by the fuzzer"
DEEPEST = 4


class Raised(Exception):
    """What a callback raises here."""


def is_ours(error: BaseException | None) -> bool:
    """Raised here, or, if it was none that a coroutine may raise, the cause of what was raised for it."""
    return error is not None and (
        OURS in error.args or getattr(error, "message", None) == OURS or is_ours(error.__cause__))


def is_exit(error: BaseException | None) -> bool:
    """What goes to the event loop, and out of it."""
    return isinstance(error, (KeyboardInterrupt, SystemExit)) and is_ours(error)


class World(Protocol):
    """What the listeners of one event loop share."""

    live: list[Side]
    broadcasts: int  # that are under way
    judging: int  # frames that may be pongs: what is read meanwhile would overtake them
    comparing: int  # keys of send_latest: what is sent under keys meanwhile is older or newer than what waits for the comparison

    def found(self, index: int, text: str) -> None: ...
    def run_nested(self, side: Side) -> None: ...
    def run_again(self, side: Side) -> None: ...
    def watch(self, thing: object, index: int) -> None: ...
    def stalled_since(self, moment: float) -> bool: ...


Action = tuple[Callable[["Side"], None], float, bool]  # how often, and whether as often as the side is wild


class Side:
    """One end of a connection that is picows: what it did, and what came."""

    def __init__(self, world: World, chance: random.Random, index: int, origin: int, *, actions: list[Action],
                 wildness: float, sends: float) -> None:
        self.world, self.chance, self.index, self.origin = world, chance, index, origin
        self.numbers = 0
        self.depth = 0
        self.budget = 150
        self.bytes_left = chance.choice([20_000, 300_000, 1_000_000, 3_000_000])
        self.sent, self.pings = Ledger(), Ledger()
        self.latest = LatestLedger()
        self.came: list[Key] = []
        self.problems: list[str] = []
        self.transport: WSTransport | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pauses = 0
        self.close_seen = False
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
        self.wildness = wildness
        self._actions = [action for action, _, _ in actions]
        self._weights = list(accumulate(weight * (wildness if is_wild else 1) for _, weight, is_wild in actions))

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
        latest = [key for key in came if key in self.latest]
        fault = self.sent.fault([key for key in came if key not in self.latest], complete)
        if fault is not None:
            return fault
        # At the end what waits is dropped where it would get into a message that has not ended.
        complete = complete and not self.fragmented and not self.quiet
        fault = self.latest.fault(latest, complete)
        gone = self.latest.gone(len(latest))
        if fault is None and complete and gone is not None and self.transport is not None:
            replaced = self.transport.stats().replaced
            if replaced != gone:
                return f"{gone} messages under keys did not come, but {replaced} were replaced"
        return fault

    def ended(self) -> None:
        """Let go of all that was kept."""
        self.check_kept()
        self.check_frames()
        self.views.clear()
        for task in list(self.tasks):
            task.cancel()
        self.external.clear()
