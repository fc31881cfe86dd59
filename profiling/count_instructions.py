"""Instructions and system calls for each frame, and where they go: figures that do not depend on how busy a machine is.

    python profiling/count_instructions.py [--json new.json] [--compare old.json]

Runs workload.py under valgrind's callgrind, and under strace if that is there. A row of the table is split:

picows      its own code, and what that calls in libc and in the interpreter
listener    the callback: of Python, the interpreter at work on it; of Cython, its C code
loop        the rest of one turn of asyncio's loop; where frames are sent outside of callbacks, the caller of send()

All are instructions for each frame, outside of the kernel. System calls are for each burst.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / f"profiling-{sysconfig.get_config_var('SOABI')}"

# Called by the event loop. Everything else that runs in picows is called from there, or by the listener.
ENTRIES = re.compile(r"AsyncioProtocol\.(get_buffer|buffer_updated)$")
# Called by the interpreter on behalf of somebody else: these are not calls by the listener.
SLOTS = re.compile(r"buffer__$|^(tp|sq|mp|nb)_")
GETTERS = re.compile(r"^get_(msg_type|payload_size|tail_size|fin|rsv\d|last_in_buffer)$")
SHOWN = ("picows", "listener", "loop", "total")


class Function(NamedTuple):
    module: str
    name: str

    @property
    def is_picows(self) -> bool:
        return self.module == "picows"


# What calls the listener: one function, unless the compiler keeps its inner one apart.
DELIVERING = (Function("picows", "deliver"), Function("picows", "deliver_frames"))


class Profile:
    """One dump of callgrind: the cost of each function itself, and of each call with all that it calls."""

    def __init__(self, path: Path) -> None:
        self.own: Counter[Function] = Counter()
        self.calls: Counter[tuple[Function, Function]] = Counter()
        module = name = source = ""
        called_module = called_name = ""
        lines = iter(path.read_text(encoding="utf-8", errors="replace").splitlines())
        for line in lines:
            key, is_name, value = line.partition("=")
            if is_name and key == "ob":
                module = module_name(value)
            elif is_name and key == "fn":
                name, called_module = value, ""
            elif is_name and key in ("fl", "fi", "fe"):
                source = module_name(value)
            elif is_name and key == "cob":
                called_module = module_name(value)
            elif is_name and key == "cfn":
                called_name = value
            elif is_name and key == "calls":
                caller = function(module, name)
                callee = function(called_module or module, called_name)
                self.calls[caller, callee] += cost_of(next(lines))
                called_module = ""
            elif line[:1].isdigit():
                # Inlined or not: its source file tells, if the build has debug information.
                is_mask = module == "picows" and source == "mask"
                self.own[Function(module, "picows_mask") if is_mask else function(module, name)] += cost_of(line)
        self.total = sum(self.own.values())

    def calls_to(self, pattern: re.Pattern[str]) -> int:
        """What picows' functions of these names cost, with all that they call."""
        return sum(cost for (_, callee), cost in self.calls.items() if callee.is_picows and pattern.search(callee.name))

    def from_outside(self) -> Counter[Function]:
        """What was called in picows by its user, with all that it calls."""
        called: Counter[Function] = Counter()
        for (caller, callee), cost in self.calls.items():
            if callee.is_picows and not caller.is_picows and not ENTRIES.search(callee.name) and not SLOTS.search(callee.name):
                called[callee] += cost
        return called

    def callbacks(self) -> int:
        """What picows called in its user, with all that this calls."""
        return sum(
            cost
            for (caller, callee), cost in self.calls.items()
            if caller in DELIVERING and re.search(r"FastCall|Vectorcall|on_ws_frame", callee.name)
        )

    def split(self, is_sender: bool) -> dict[str, int]:
        by_user = sum(self.from_outside().values())
        listener = 0 if is_sender else self.callbacks() - by_user
        picows = by_user if is_sender else self.calls_to(ENTRIES) - listener
        if not picows:
            sys.exit("callgrind does not see picows' functions: was the extension module stripped of its symbols?")
        return {"picows": picows, "listener": listener, "loop": self.total - picows - listener, "total": self.total}

    def parts(self, is_sender: bool) -> dict[str, int]:
        """Where it all went."""
        parts = self.split(is_sender)
        attributes = sum(cost for callee, cost in self.from_outside().items() if GETTERS.search(callee.name))

        def own(names: str) -> int:
            return sum(cost for key, cost in self.own.items() if key.is_picows and re.fullmatch(names, key.name))

        def libc(names: str) -> int:
            return sum(
                cost
                for (caller, callee), cost in self.calls.items()
                if caller.is_picows and callee.module.startswith("libc") and re.search(names, callee.name)
            )

        found = {
            "event loop, or the caller of send": parts["loop"],
            "listener": parts["listener"],
            "attributes of the frame": attributes,
            "read, parse, deliver": own(
                r"deliver(_frames)?|receive_frames|lend_buffer|AsyncioProtocol\.(get_buffer|buffer_updated)"
            ),
            "mask, unmask": own("picows_mask"),
            "send: check, build the frame": own(
                r"((WSTransport|CheckedSend)\.)?send\w*|write_(whole_)?frame|write_alone|get_message|checked_connection|next_mask"
                r"|build_frame"
            ),
            "gather, write": own(r"room_to_gather|take_write_buffer|uncork|write_bytes|flush"),
            "copy (memcpy, memmove)": libc("^_*mem(cpy|move)"),
            "enter the kernel (send, sendmsg)": libc("^_*send"),
        }
        found["the rest of picows: buffers, glue"] = parts["total"] - sum(found.values())
        return found


def module_name(path: str) -> str:
    return Path(path).name.partition(".")[0]


def cost_of(line: str) -> int:
    numbers = line.split()
    return int(numbers[1]) if len(numbers) > 1 else 0


def function(module: str, name: str) -> Function:
    """Cython's glue and the compiler's suffixes taken off: __pyx_f_6picows_6picows_11WSTransport_send is WSTransport.send."""
    name = re.sub(r"\.(constprop|isra|part|cold)\b.*|'\d+$", "", name)
    if name.startswith("__Pyx_CyFunction"):
        return Function("cython", name)  # calls what the interpreter wants called
    match = re.match(r"__pyx_(?:f|pw|pf|tp_\w+?|getprop)_(6picows_)+", name)
    if match:
        kind = re.match(r"__pyx_(tp_\w+?)_6picows", name)
        name = re.sub(r"^\d+(WS[A-Za-z]+|Connection|[A-Z][A-Za-z]*)_(\d+(?=[a-z_]))?", r"\1.", name[match.end() :])
        name = f"{kind[1]}_{name}" if kind else name
    return Function(module, name)


def build_listeners() -> None:
    """Compile listeners.pyx, out of the way."""
    from Cython.Build import cythonize
    from setuptools import Extension, setup

    os.chdir(ROOT)
    BUILT.mkdir(parents=True, exist_ok=True)
    modules = cythonize([Extension("listeners", ["profiling/listeners.pyx"])], build_dir=str(BUILT), quiet=True)
    setup(ext_modules=modules, script_args=["-q", "build_ext", "--build-lib", str(BUILT), "--build-temp", str(BUILT)])


def run(tool: list[str], arguments: list[str]) -> list[dict[str, Any]]:
    """The workload under a tool; what it printed."""
    path = os.pathsep.join([str(ROOT), str(BUILT)])
    # Hashes of strings decide how long a look-up takes.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*tool, sys.executable, str(Path(__file__).with_name("workload.py")), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{tool[0]} failed:\n{done.stderr}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def count_instructions(arguments: list[str], folder: Path) -> list[dict[str, Any]]:
    out = folder / "callgrind"
    rows = run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            "--toggle-collect=picows_counted*",
            "--dump-after=picows_row_done*",
            "--compress-strings=no",
            "--compress-pos=no",
        ],
        arguments,
    )
    for number, row in enumerate(rows, 1):
        row["profile"] = profile = Profile(Path(f"{out}.{number}"))
        is_sender = row["case"].endswith("sends")
        row |= {name: cost / row["frames"] for name, cost in profile.split(is_sender).items()}
    return rows


def count_system_calls(arguments: list[str], folder: Path) -> list[dict[str, float]]:
    """For each row, how often a burst calls the kernel."""
    log = folder / "strace"
    rows = run(["strace", "-qq", "-o", str(log)], [*arguments, "--mark"])
    counts = system_calls_by_row(log.read_text(encoding="utf-8", errors="replace"))
    return [
        {name: round(count * row["burst"] / row["frames"], 2) for name, count in found.items()} for row, found in zip(rows, counts)
    ]


def system_calls_by_row(log: str) -> list[Counter[str]]:
    """What strace saw between the marks of each row. The peer's calls, told by its descriptor, are left out."""
    counts: list[Counter[str]] = []
    peer = None
    for line in log.splitlines():
        begin = re.match(r'access\("picows begin (\d+)"', line)
        call = re.match(r"(\w+)\((\d*)", line)
        if begin:
            peer = begin[1]
            counts.append(Counter())
        elif line.startswith('access("picows end"'):
            peer = None
        elif peer is not None and call and call[2] != peer:
            counts[-1][call[1]] += 1
    return counts


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'':27}{'':9}{'bytes':>6}{'burst':>6}" + "".join(f"{name:>10}" for name in SHOWN) + "  system calls")
    for row in rows:
        calls = ", ".join(f"{count:g} {name}" for name, count in row["system_calls"].items() if count >= 0.1)
        figures = "".join(f"{row[name]:>10,.0f}" for name in SHOWN)
        print(f"{row['case']:27}{row['language']:9}{row['size']:>6}{row['burst']:>6}{figures}  {calls}")


def print_parts(row: dict[str, Any], lines: int = 20) -> None:
    frames, profile = row["frames"], row["profile"]
    print(f"\nWhere they go: {row['case']}, a listener in {row['language']}, {row['size']} bytes, {row['burst']} in a burst\n")
    for name, cost in profile.parts(row["case"].endswith("sends")).items():
        print(f"{cost / frames:>9,.0f} {cost / profile.total:>6.1%}  {name}")
    print("\nThe functions that cost most by themselves\n")
    for key, cost in profile.own.most_common(lines):
        print(f"{cost / frames:>9,.0f} {cost / profile.total:>6.1%}  {key.module}: {key.name}")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table of the documentation: how a frame of the first size is split, and the totals of the others."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    table: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        line = table.setdefault((row["case"], row["language"]), [row["case"], row["language"]])
        if row["size"] == sizes[0]:
            line += [f"{row[name]:,.0f}" for name in SHOWN[:-1]]
        line.append(f"{row['total']:,.0f}")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "Listener in", *SHOWN[:-1], *(f"total, {size} bytes" for size in sizes)])
        writer.writerows(table.values())


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["case"], row["language"], row["size"], row["burst"]


def print_changes(old: dict[str, Any], new: dict[str, Any]) -> None:
    for name in ("python", "frames"):
        if old[name] != new[name]:
            print(f"\nMind: {name} was {old[name]}, is {new[name]}")
    before = {key_of(row): row for row in old["rows"]}
    print("\nChanges, old to new\n")
    for row in new["rows"]:
        was = before.get(key_of(row))
        if was is not None:
            figures = "".join(
                f"  {name} {was[name]:,.0f} to {row[name]:,.0f} ({row[name] / was[name] - 1:+.1%})" for name in ("picows", "total")
            )
            calls = "" if was["system_calls"] == row["system_calls"] else f"  {was['system_calls']} to {row['system_calls']}"
            print(f"{row['case']:27}{row['language']:9}{row['size']:>6}{row['burst']:>6}{figures}{calls}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256, 8192], help="bytes of a message")
    parser.add_argument("--frames", type=int, default=2048, help="how many frames a row is the mean of")
    parser.add_argument("--burst", type=int, default=64, help="frames in one read, or what 64 KiB hold of them")
    parser.add_argument("--where", default="server echoes, bursts", metavar="CASE", help="show where these go, for the first size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table of the documentation there")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print the differences from figures written before")
    args = parser.parse_args()
    old = json.loads(args.compare.read_text(encoding="utf-8")) if args.compare else None
    if not shutil.which("valgrind"):
        sys.exit("Counting needs valgrind, which is not there. On Debian and Ubuntu: apt install valgrind")
    if not shutil.which("strace"):
        print("System calls are not counted: there is no strace.", file=sys.stderr)

    build_listeners()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--frames", str(args.frames), "--burst", str(args.burst), "--sizes", *map(str, args.sizes)]
        rows = count_instructions(options, folder)
        calls = count_system_calls(options, folder) if shutil.which("strace") else [{} for _ in rows]
    for row, found in zip(rows, calls):
        row["system_calls"] = found

    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"Instructions for each frame, outside of the kernel, and system calls for each burst; {python}\n")
    print_table(rows)
    for row in rows:
        if row["case"] == args.where and row["size"] == args.sizes[0]:
            print_parts(row)

    figures = [{name: value for name, value in row.items() if name != "profile"} for row in rows]
    new = {"python": python, "machine": platform.machine(), "frames": args.frames, "rows": figures}
    if args.json:
        args.json.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    if args.csv:
        write_csv(args.csv, rows)
    if old is not None:
        print_changes(old, new)


if __name__ == "__main__":
    main()
