"""What came: whether all of it, once, in order and undamaged; and what is kept of it longer than its callback."""

from __future__ import annotations

import random
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from live_wire import Damaged, Key, keys_in, make_chunk

from picows import WSFrame

__all__ = ["Damaged", "Fault", "Keeper", "Messages", "Numbers", "Rising"]


class Fault(Exception):
    """What the soak is to find."""


class Numbers:
    """The messages of one origin, which have to come one after the other.

    :param last: the number before the first that is to come; None: any may be the first
    """

    def __init__(self, origin: int, last: int | None = 0) -> None:
        self.origin, self.last = origin, last

    def take(self, message: bytes) -> None:
        for key in keys_in(message):
            if key.origin != self.origin:
                raise Fault(f"a message of {key.origin:x} came, where those of {self.origin:x} are sent")
            self.check(key.number)
            self.last = key.number

    def check(self, number: int) -> None:
        if self.last is None or number == self.last + 1:
            return
        if number > self.last:
            raise Fault(f"messages {self.last + 1} to {number - 1} of {self.origin:x} were lost, or overtaken by the next")
        raise Fault(f"message {number} of {self.origin:x} came behind {self.last}: repeated, or overtaken")


class Rising(Numbers):
    """Messages of which newer ones replace older ones."""

    def check(self, number: int) -> None:
        if self.last is not None and number <= self.last:
            super().check(number)


class Messages:
    """Makes the messages of one origin."""

    def __init__(self, origin: int, chance: random.Random) -> None:
        self.origin, self._chance = origin, chance
        self.last = 0

    def make(self, size: int) -> bytes:
        """The next, which is sent as soon as `last` is one more."""
        return make_chunk(Key(self.origin, self.last + 1), size, self._chance)


class Keeper:
    """Views and frames that outlive their callbacks, a bounded number of each."""

    def __init__(self, chance: random.Random, most: int = 8) -> None:
        self._chance, self._most = chance, most
        self._views: deque[tuple[memoryview, int]] = deque()
        self._frames: deque[WSFrame] = deque(maxlen=most)
        self._elsewhere = ThreadPoolExecutor(1)

    def offer(self, frame: WSFrame) -> None:
        """Inside of the callback: some are kept, and those that are let go are checked."""
        draw = self._chance.random()
        if draw < 0.02:
            view = frame.get_payload_as_memoryview() if draw < 0.01 else memoryview(frame)
            self._views.append((view, zlib.crc32(view)))
            if len(self._views) > self._most:
                self._let_go()
        elif draw < 0.03:
            for kept in self._frames:
                _check_empty(kept)
            self._frames.append(frame)

    def close(self) -> None:
        while self._views:
            self._let_go()
        for kept in self._frames:
            _check_empty(kept)
        self._frames.clear()
        self._elsewhere.shutdown()

    def _let_go(self) -> None:
        view, checksum = self._views.popleft()
        if zlib.crc32(view) != checksum:
            raise Fault(f"a kept view of {view.nbytes} bytes does not hold what it did")
        if self._chance.random() < 0.5:
            self._elsewhere.submit(view.release)
        else:
            view.release()


def _check_empty(frame: WSFrame) -> None:
    try:
        frame.get_payload_as_bytes()
    except RuntimeError:
        return
    raise Fault("a frame was used after its callback, and raised nothing")
