"""What the soak measures of a process, and whether it stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple


class Bound(NamedTuple):
    """How much a figure may grow over the second half of a run, by its slope."""

    allowed: float
    unit: str
    floor: bool = False  # of the least of each twentieth, in place of all samples


# Connections come and go, so every figure sways. These are about three times what the sway alone makes of a slope; what
# leaks for one connection in a hundred is far beyond them within an hour. Large messages come at random, and raise resident
# memory by half for as long as they live, but a leak raises what is left without them.
BOUNDS = {
    "resident": Bound(4096, "KiB", floor=True),
    "descriptors": Bound(10, ""),
    "timers": Bound(20, ""),
    "tasks": Bound(20, ""),
    "ours": Bound(40, ""),
    "objects": Bound(2000, ""),
}
# In the second half. Fewer tell nothing, and what is used for the first time grows for a while.
LEAST_SAMPLES = 20
LEAST_SECONDS = 60.0

_OWN_MODULES = ("picows", "soak", "__main__")


class Growth(NamedTuple):
    """How a figure went on over the second half of a run."""

    figure: str
    first: float  # the mean of the first tenth of it
    last: float  # and of the last
    growth: float  # the slope by least squares, times the length of the half
    seconds: float

    @property
    def too_much(self) -> bool:
        return self.growth > BOUNDS[self.figure].allowed

    def __str__(self) -> str:
        bound = BOUNDS[self.figure]
        return (f"{self.figure:12}{self.first:12,.0f}{self.last:12,.0f}{self.growth:+12,.1f} in {self.seconds:,.0f} s, "
                f"allowed {bound.allowed:,.0f} {bound.unit}{'   GROWS' if self.too_much else ''}")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through points (x, y) that has the least squares."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def growths(samples: Sequence[dict[str, float]]) -> list[Growth]:
    """Of each figure, over the second half of the samples; none if that is too short."""
    half = [sample for sample in samples if sample["time"] >= samples[-1]["time"] / 2] if samples else []
    seconds = half[-1]["time"] - half[0]["time"] if half else 0.0
    if len(half) < LEAST_SAMPLES or seconds < LEAST_SECONDS:
        return []
    tenth = max(len(half) // 10, 1)
    found = []
    for figure in BOUNDS:
        points = [(sample["time"], sample[figure]) for sample in half]
        first, last = (sum(y for _, y in some) / tenth for some in (points[:tenth], points[-tenth:]))
        counted = lowest(points) if BOUNDS[figure].floor else points
        found.append(Growth(figure, first, last, slope(counted) * seconds, seconds))
    return found


def lowest(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lowest point of each twentieth of them."""
    size = max(len(points) // LEAST_SAMPLES, 1)
    return [min(points[start:start + size], key=lambda point: point[1]) for start in range(0, len(points), size)]


def take_sample(loop: Any) -> dict[str, float]:
    """The figures of this process now."""
    gc.collect()
    kinds = count_kinds()
    return {
        "resident": resident(),
        "descriptors": len(descriptors()),
        "timers": len(timers()),
        "tasks": len(asyncio.all_tasks(loop)),
        "ours": sum(own(kinds).values()),
        "objects": sum(kinds.values()),
    }


def resident() -> float:
    """Resident memory in KiB."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def descriptors() -> list[str]:
    """What each descriptor is of, but for that by which they are listed, and the one that libuv keeps in reserve."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [name for name in found if name != "/dev/null"]


def timers() -> list[Any]:
    """Those that are set. asyncio forgets cancelled ones when there are many, or when their time has come."""
    return [thing for thing in gc.get_objects() if type(thing).__name__ == "TimerHandle" and not thing.cancelled()]


def count_kinds() -> Counter[str]:
    """How many objects that the collector knows there are of each type."""
    kinds: Counter[str] = Counter()
    for kind, count in Counter(map(type, gc.get_objects())).items():
        kinds[f"{kind.__module__}.{kind.__qualname__}"] += count
    return kinds


def own(kinds: Counter[str]) -> Counter[str]:
    """Those of picows and of the soak itself."""
    return Counter({kind: count for kind, count in kinds.items() if kind.startswith(_OWN_MODULES)})
