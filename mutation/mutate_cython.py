"""Breaks the compiled modules, one place at a time, and looks whether a test sees it.

    python -m mutation.mutate_cython --count 60 --lines FILE... [--seed 7] [--files picows/_core/send.pxi,...]

A copy of the tree, below build/, is broken, built and tested; the seed chooses where. Most breaks are built at once, and a number
chooses among them; the others are built one by one. A break is tried by the tests that run its line: --lines names what coverage
wrote down of them (`make coverage-cython`). A break that no test sees is printed, and has to get a test, or a place in
mutation/same_program.txt, below a sentence why the program is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.packaging.installation import SOURCES as SOURCES_OF_TESTS

from . import switches
from .forked import NO_TEST, NOT_SEEN
from .mutations import Mutation, mutations
from .tests_of import Tests

ROOT = Path(__file__).parents[1]
EXPLAINED = Path(__file__).with_name("same_program.txt")
SOURCES = (
    "picows/_native/*.h",
    "picows/_codec.pxd",
    *("picows/*.pyx", "picows/*/*.pyx", "picows/*/*/*.pyx"),
    *("picows/*.pxi", "picows/*/*.pxi"),
)

BUILD_TIME = 900.0  # seconds
TEST_TIME_LIMIT = 60  # seconds for one test; most breaks that hang one hang many
NO_PROGRAM, EXPLAINED_ALREADY = "does not build", "same program"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="how many places are broken")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--files", default="", help="beginnings of paths, all by default")
    parser.add_argument("--only", type=Path, help="a file with the keys of the breaks to be made")
    parser.add_argument("--lines", type=Path, nargs="+", required=True, help="the data of coverage, with the contexts of tests")
    parser.add_argument("--seconds", type=float, default=10.0, help="of tests for each break, as long as they take unbroken")
    parser.add_argument("--alone", action="store_true", help="also those that need a build of their own")
    parser.add_argument("--tree", type=Path, default=ROOT / "build" / "mutation")
    arguments = parser.parse_args()

    chosen = choose(arguments.seed, arguments.count, tuple(filter(None, arguments.files.split(","))), arguments.only)
    print(f"seed {arguments.seed}: {len(chosen)} breaks", flush=True)
    explained = set(EXPLAINED.read_text(encoding="utf-8").splitlines())
    tree = arguments.tree
    verdicts = [{"key": mutation.key, "outcome": EXPLAINED_ALREADY} for mutation in chosen if mutation.key in explained]
    numbered = {number: mutation for number, mutation in enumerate(chosen, 1) if mutation.key not in explained}
    together = built_together(tree, numbered)
    print(f"{len(together)} of them in one build", flush=True)
    tests = Tests(arguments.lines)
    verdicts += tried(tree, {number: numbered[number] for number in sorted(together)}, tests, arguments.seconds)
    if arguments.alone:
        copy_tree(tree)
        for number in sorted(numbered.keys() - together):
            verdicts += tried_alone(tree, numbered[number], tests, arguments.seconds)
    return summary(verdicts)


def choose(seed: int, count: int, beginnings: tuple[str, ...], only: Path | None) -> list[Mutation]:
    """As many from each file as it has of all that can be broken."""
    files = sorted({path.relative_to(ROOT) for pattern in SOURCES for path in ROOT.glob(pattern)})
    everything = [
        mutation for path in files if not beginnings or path.as_posix().startswith(beginnings) for mutation in mutations(ROOT, path)
    ]
    if only is not None:
        keys = set(only.read_text(encoding="utf-8").splitlines())
        return [mutation for mutation in everything if mutation.key in keys]
    return random.Random(seed).sample(everything, min(count, len(everything)))


def copy_tree(tree: Path) -> None:
    tree.mkdir(parents=True, exist_ok=True)
    for name in SOURCES_OF_TESTS:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def built(tree: Path) -> bool:
    environment = {**os.environ, "PICOWS_BUILD_EXAMPLES": "1", "PICOWS_QUICK": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    with (tree / "build.log").open("wb") as log:
        try:
            subprocess.run(command, cwd=tree, env=environment, stdout=log, stderr=log, timeout=BUILD_TIME, check=True)
            return True
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False


def built_together(tree: Path, numbered: dict[int, Mutation]) -> set[int]:
    """The numbers of those that one build holds: what does not compile this way is left out of it."""
    left = dict(numbered)
    while True:
        copy_tree(tree)
        together = switches.build_in(tree, left.items())
        if built(tree):
            return together
        failed = failed_in(tree)
        if not failed:
            raise SystemExit(f"does not build: {tree / 'build.log'}")
        for number in failed:
            left.pop(number, None)


def failed_in(tree: Path) -> set[int]:
    """The numbers in the lines that the compilers complain of."""
    log = (tree / "build.log").read_text(encoding="utf-8", errors="replace")
    numbers = set()
    for name, line in re.findall(r"^(?:\w+: )?(picows/[\w/.]+|[\w/.-]*/picows/[\w/.]+):(\d+):", log, re.MULTILINE):
        name = name[name.rindex("picows/_native") :] if "picows/_native" in name else name
        if (tree / name).exists() and not name.endswith(".c"):
            lines = (tree / name).read_text(encoding="utf-8").split("\n")
            at = int(line) - 1
            near = "\n".join(lines[max(0, at - 1) : at + 1])
            numbers |= {int(number) for number in re.findall(rf"{switches.NUMBER} [!=]= (\d+)", near)}
    return numbers


def tried(tree: Path, numbered: dict[int, Mutation], tests: Tests, seconds: float, unbroken: bool = True) -> list[dict[str, Any]]:
    asked = [{"number": number, "key": mutation.key, "tests": tests.of(mutation)} for number, mutation in numbered.items()]
    files = sorted({test.split("::")[0] for entry in asked for test in entry["tests"]})
    plan, verdicts = tree / "plan.json", tree / "verdicts.json"
    plan.write_text(
        json.dumps({"breaks": asked, "seconds": seconds, "unbroken": unbroken, "verdicts": str(verdicts)}), encoding="utf-8"
    )
    verdicts.unlink(missing_ok=True)
    options = ["-q", "-o", f"timeout={TEST_TIME_LIMIT}", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "mutation.forked"]
    with (tree / "tests.log").open("ab") as log:
        environment = {**os.environ, "MUTATION_PLAN": str(plan), "PYTHONPATH": str(tree)}
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *files], cwd=tree, env=environment, stdout=log, stderr=log, check=False
        )
    told = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()] if verdicts.exists() else []
    by_key = {mutation.key: mutation for mutation in numbered.values()}
    for verdict in told:
        verdict["where"] = str(by_key[verdict["key"]])
    return told


def tried_alone(tree: Path, mutation: Mutation, tests: Tests, seconds: float) -> list[dict[str, Any]]:
    whole = (tree / mutation.path).read_text(encoding="utf-8")
    mutation.apply(tree)
    try:
        if not built(tree):
            return [{"key": mutation.key, "outcome": NO_PROGRAM}]
        return tried(tree, {0: mutation}, tests, seconds, unbroken=False)
    finally:
        (tree / mutation.path).write_text(whole, encoding="utf-8")


def summary(verdicts: list[dict[str, Any]]) -> int:
    for outcome, count in Counter(verdict["outcome"] for verdict in verdicts).items():
        print(f"{outcome}: {count}")
    survivors = [verdict for verdict in verdicts if verdict["outcome"] in (NOT_SEEN, NO_TEST)]
    for verdict in survivors:
        print(f"{verdict['outcome']}, {verdict['tests']} tests\n  {verdict['where']}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
