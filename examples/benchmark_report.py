"""What examples/benchmark.py found out: on the screen, as JSON and as charts.

    python -m examples.benchmark_report benchmark.json [--charts FOLDER]

draws the charts of a run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
BUSY = 0.9  # a process that worked for less of the time had to wait for its peer
MOST_SPREAD = 0.15  # of what is published


@dataclass(frozen=True)
class Case:
    """What is measured. A number of 0 does not apply."""

    kind: str
    size: int = 0  # bytes in a message
    depth: int = 0  # messages in flight on a connection
    connections: int = 0
    tls: bool = False
    loop: str = "uvloop"

    @property
    def name(self) -> str:
        numbers = (f"{self.size or ''}", f"d{self.depth}" * (self.depth > 0), f"c{self.connections}" * (self.connections > 0))
        return " ".join(filter(None, (self.kind, *numbers, "tls" if self.tls else "tcp", self.loop)))


@dataclass(frozen=True)
class Sample:
    rate: float = 0.0  # messages, or handshakes, in a second
    cpu_us: float = 0.0  # microseconds of processor time that one took, in the process of the library
    busy: float = 0.0  # for which part of the time that process worked
    kib: float = 0.0  # memory of an idle connection


@dataclass
class Result:
    """One contender in one case. No samples and no failure: it does not have what the case is about."""

    case: Case
    contender: str
    samples: list[Sample] = field(default_factory=list)
    failed: str = ""
    seconds: float = 0.0  # how long a sample took

    def median(self, name: str) -> float:
        return float(median(getattr(sample, name) for sample in self.samples))

    def spread(self, name: str) -> float:
        """Half of the range, as a part of the median."""
        values = [getattr(sample, name) for sample in self.samples]
        return float((max(values) - min(values)) / 2 / abs(median(values) or 1))

    @property
    def unsteady(self) -> bool:
        """Whether the samples differ by too much to tell anything."""
        return bool(self.samples) and max(map(self.spread, ("rate", "cpu_us", "kib"))) > MOST_SPREAD

    def as_json(self) -> dict[str, Any]:
        names = [name for name in asdict(Sample()) if self.samples and self.median(name)]
        return {
            "name": self.case.name,
            "contender": self.contender,
            "case": asdict(self.case),
            "median": {name: significant(self.median(name)) for name in names},
            "spread": {name: significant(self.spread(name)) for name in names},
            "samples": [{name: significant(getattr(sample, name)) for name in names} for sample in self.samples],
            "seconds": self.seconds,
            "failed": self.failed,
        }


def significant(value: float) -> float:
    return float(f"{value:.4g}")


# On the screen


class Progress:
    """A bar on a terminal that has room for one; everywhere else, the rows of the table tell how far it is."""

    def __init__(self, steps: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(total=steps, disable=None, leave=False, dynamic_ncols=True, smoothing=0.05)

    def begin(self, what: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(what)

    def step(self, steps: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(steps)

    def say(self, text: str) -> None:
        if self._bar is None or self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


NAME_WIDTH, CELL_WIDTH = 36, 23


def fits(contenders: int) -> bool:
    """A file has room for everything, a terminal may not."""
    return NAME_WIDTH + CELL_WIDTH * contenders <= shutil.get_terminal_size((1000, 0)).columns


def table_head(contenders: Sequence[str]) -> str:
    if not fits(len(contenders)):
        return ""
    return "case".ljust(NAME_WIDTH) + "".join(name.rjust(CELL_WIDTH) for name in contenders)


def table_row(results: Sequence[Result]) -> str:
    name = results[0].case.name
    if not fits(len(results)):
        return "\n".join([name, *(f"    {result.contender:20}{cell(result):>{CELL_WIDTH}}" for result in results)])
    return name.ljust(NAME_WIDTH) + "".join(cell(result).rjust(CELL_WIDTH) for result in results)


TABLE_FOOT = (
    "Medians of: messages (or handshakes) per second, the spread of these, processor time of one in the library's process.\n"
    "* That process had time to spare: its peer, or the way there and back, made the rate. Compare the processor time."
)


def cell(result: Result) -> str:
    if result.failed:
        return "failed"
    if not result.samples:
        return "-"
    if result.case.kind.startswith("idle"):
        return f"{result.median('kib'):.1f} KiB ±{result.spread('kib'):.0%}"
    if result.case.kind == "pings":
        return f"{result.median('rate'):.0f}/s {result.median('busy'):.1%} of a core"
    mark = "*" if result.median("busy") < BUSY else ""
    spread = f"±{result.spread('rate'):.0%}"
    return f"{mark}{short(result.median('rate'))} {spread:>4} {digits(result.median('cpu_us')):>5} us"


def short(number: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return digits(number / unit) + name
    return digits(number)


def digits(number: float) -> str:
    """Three of them, or those in front of the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"


async def measure(
    cases: Sequence[Case], contenders: Sequence[str], runs: int, run_case: Callable[[Case, Progress], Awaitable[list[Result]]]
) -> list[Result]:
    """Run the cases one after another; their table is shown row by row."""
    print(table_head(contenders), flush=True)
    results: list[Result] = []
    progress = Progress(len(cases) * len(contenders) * runs)
    try:
        for case in cases:
            progress.begin(case.name)
            row = await run_case(case, progress)
            results += row
            progress.say(table_row(row))
    finally:
        progress.close()
    return results


def failures(results: Iterable[Result]) -> list[str]:
    """One line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.failed:
            reasons.setdefault((result.contender, result.failed), []).append(result.case.name)
    return [
        f"{contender} failed in {names[0]}" + f" and {len(names) - 1} more" * (len(names) > 1) + f": {reason}"
        for (contender, reason), names in reasons.items()
    ]


def unsteady(results: Iterable[Result]) -> list[str]:
    """What to measure again on a machine that does nothing else."""
    return [
        f"{result.contender} varied by more than {MOST_SPREAD:.0%} in {result.case.name}, in samples of {result.seconds:g} s"
        for result in results
        if result.unsteady
    ]


# JSON


def conditions() -> dict[str, Any]:
    """Where and when this is measured."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else ""),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def write_json(path: Path, about: dict[str, Any], results: Iterable[Result]) -> None:
    """A line for each result, so that two runs can be compared by their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({**about, "results": []}, indent=1).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(result.as_json())}" for result in results)
    path.write_text(f"{head}[\n{lines}\n ]\n}}\n", encoding="utf-8")


def read_json(path: Path) -> tuple[dict[str, Any], list[Result]]:
    about = json.loads(path.read_text(encoding="utf-8"))
    results = [
        Result(
            Case(**each["case"]),
            each["contender"],
            [Sample(**sample) for sample in each["samples"]],
            each["failed"],
            each.get("seconds", 0.0),
        )
        for each in about.pop("results")
    ]
    return about, results


# Charts

COLOURS = {
    "picows": "#c2255c",
    "picows-messages": "#e64980",
    "picows-published": "#fcc2d7",
    "websockets": "#1971c2",
    "aiohttp": "#2f9e44",
    "tornado": "#7048e8",
    "wsproto": "#868e96",
}


@dataclass(frozen=True)
class Panel:
    """One bar for each contender: its best result among the cases of these kinds."""

    title: str
    kinds: tuple[str, ...]
    size: int = 0
    depth: int = 0
    tls: bool = False

    def results(self, results: Iterable[Result], loop: str) -> dict[str, tuple[float, float, float]]:
        """Of each contender the median, and the lowest and highest sample of the same case."""
        found: dict[str, tuple[float, float, float]] = {}
        for result in results:
            case = result.case
            wanted = (self.size, self.depth, self.tls, loop) == (case.size, case.depth, case.tls, case.loop)
            if result.samples and case.kind in self.kinds and wanted:
                memory = case.kind == "idle"
                values = [sample.kib if memory else 1e6 / sample.cpu_us for sample in result.samples]
                value = result.median("kib") if memory else 1e6 / result.median("cpu_us")
                best = min if memory else max
                measured = (value, min(values), max(values))
                found[result.contender] = best(measured, found.get(result.contender, measured))
        return found


PANELS = (
    Panel("Server: echo, 256 bytes", ("echo",), 256, 1),
    Panel("Server: echo, 256 bytes, 64 in flight", ("echo",), 256, 64),
    Panel("Server: echo over TLS, 256 bytes", ("echo",), 256, 1, tls=True),
    Panel("Client: round trip, 256 bytes", ("round trip",), 256, 1),
    Panel("Client: receive a stream, 256 bytes", ("receive",), 256),
    Panel("Client: send a stream, 256 bytes", ("send",), 256),
    Panel("Server: handshakes", ("handshake",)),
    Panel("Server: broadcast to 1,000, 256 bytes", ("broadcast", "send to all"), 256),
    Panel("Memory of an idle connection, KiB\n(less is better)", ("idle",)),
)


def draw_charts(folder: Path, about: dict[str, Any], results: list[Result]) -> list[Path]:
    """Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    charts = [folder / "benchmark.png", folder / "benchmark_scaling.png"]
    draw_bars(charts[0], about, results)
    draw_scaling(charts[1], about, results)
    return charts


def caption(about: dict[str, Any], loop: str) -> str:
    where = about["conditions"]
    place = f"{where['cpu']}, {where['system']}, {where['python']}, {loop}, {where['date'][:10]}, commit {where['commit']}"
    others = (name for name in about.get("versions", {}) if name != "picows-messages")
    names = [f"{name} {version(name, about)}" if name != PUBLISHED else label(name, about) for name in others]
    return f"{place}\n{', '.join(names)}\n{length(about)}"


def length(about: dict[str, Any]) -> str:
    where = about["conditions"]
    if "runs" not in where:
        return ""
    return (
        f"Medians of {where['runs']} samples of {where['seconds']:g} s each, taken in turns; longer where they varied by more than "
        f"{MOST_SPREAD:.0%}. Lines show the lowest and the highest"
    )


PUBLISHED = "picows-published"


def version(contender: str, about: dict[str, Any]) -> str:
    packages = about.get("versions", {}).get(contender, {})
    return str(packages.get(contender.partition("-")[0], ""))


def label(contender: str, about: dict[str, Any]) -> str:
    """What readers call it: the package that is on the index has the same name as ours."""
    if contender == PUBLISHED:
        return f"published picows {version(contender, about)}".rstrip()
    return {"picows-messages": "picows, messages"}.get(contender, contender)


def main_loop(results: list[Result]) -> str:
    return "uvloop" if any(result.case.loop == "uvloop" for result in results) else "asyncio"


def ordered(contenders: Iterable[str]) -> list[str]:
    there = set(contenders)
    return [name for name in COLOURS if name in there]


def draw_bars(path: Path, about: dict[str, Any], results: list[Result]) -> None:
    from matplotlib import pyplot

    loop = main_loop(results)
    names = ordered(result.contender for result in results)
    # One case of an echo is in the matrix of sizes and depths; others only count connections.
    fixed = [result for result in results if result.case.kind != "echo" or result.case.connections == 8]
    figure, axes = pyplot.subplots(3, 3, figsize=(12, 8.4), sharey=True, layout="constrained")
    for axis, panel in zip(axes.flat, PANELS):
        found = panel.results(fixed, loop)
        middle, low, high = zip(*(found.get(name, (0.0, 0.0, 0.0)) for name in names))
        spread = [[value - least for value, least in zip(middle, low)], [most - value for value, most in zip(middle, high)]]
        bars = axis.barh(
            [label(name, about) for name in names],
            middle,
            xerr=spread,
            color=[COLOURS[name] for name in names],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#495057"},
        )
        axis.bar_label(bars, [short(found[name][0]) if name in found else "-" for name in names], padding=3, fontsize=9)
        axis.set_title(panel.title, fontsize=10, loc="left")
        axis.margins(x=0.18)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].invert_yaxis()
    figure.suptitle("Messages or handshakes in one second of processor time (more is better)", fontsize=13)
    figure.supxlabel(caption(about, loop), fontsize=8, color="#666666")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_scaling(path: Path, about: dict[str, Any], results: list[Result]) -> None:
    from matplotlib import pyplot

    loop = main_loop(results)
    plain = [each for each in results if each.samples and (each.case.loop, each.case.tls) == (loop, False)]
    echoes = [each for each in plain if each.case.kind == "echo"]
    by_connections = [each for each in echoes if (each.case.size, each.case.depth) == (256, 1)]
    by_depth = [each for each in echoes if (each.case.size, each.case.connections) == (32, 1)]
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    panels = (
        (axes[0], by_connections, "connections", "connections, with one message of 256 bytes in flight on each"),
        (axes[1], by_depth, "depth", "messages of 32 bytes in flight on one connection"),
    )
    for axis, chosen, number, what in panels:
        for name in ordered(result.contender for result in chosen):
            line = sorted((getattr(each.case, number), *rates(each)) for each in chosen if each.contender == name)
            numbers, middle, low, high = zip(*line)
            axis.plot(numbers, middle, marker="o", markersize=4, label=label(name, about), color=COLOURS[name])
            axis.fill_between(numbers, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axis.set_xscale("log", base=10 if number == "connections" else 2)
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlabel(what)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("echoed messages per second")
    if by_connections:
        axes[0].legend()
    figure.suptitle("One server process; the client of all, in Python too, may be the limit", fontsize=13)
    figure.supxlabel(caption(about, loop), fontsize=8, color="#666666")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def rates(result: Result) -> tuple[float, float, float]:
    """The median, the lowest and the highest."""
    values = [sample.rate for sample in result.samples]
    return result.median("rate"), min(values), max(values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the charts of a benchmark again.")
    parser.add_argument("json", type=Path)
    parser.add_argument("--charts", type=Path, default=Path(), metavar="FOLDER")
    args = parser.parse_args()
    print(*draw_charts(args.charts, *read_json(args.json)), sep="\n")
