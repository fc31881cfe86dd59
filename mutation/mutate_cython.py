"""Breaks the compiled modules, one place at a time, and looks whether a test sees it.

    python -m mutation.mutate_cython --count 60 [--seed 7] [--files picows/_core/send.pxi,...] [--only 17]

A copy of the tree, below build/, is broken, built and tested; the seed chooses where. A break that no test sees is printed, and
has to get a test, or a place in mutation/same_program.txt, below a sentence why the program is the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.packaging.installation import SOURCES as SOURCES_OF_TESTS

from .mutations import Mutation, mutations

ROOT = Path(__file__).parents[1]
EXPLAINED = Path(__file__).with_name("same_program.txt")
SOURCES = (
    "picows/_native/*.h",
    "picows/_codec.pxd",
    *("picows/*.pyx", "picows/*/*.pyx", "picows/*/*/*.pyx"),
    *("picows/*.pxi", "picows/*/*.pxi"),
)

# Which tests are about a file, those first that are likely to see a break: by the beginning of its path.
TESTS = {
    "picows/_native": "tests/codec tests/messages tests/connection",
    "picows/_codec": "tests/codec tests/messages tests/connection",
    "picows/_messages": "tests/messages tests/connection",
    "picows/_streams": "tests/streams tests/websockets",
    "picows/_asgi": "tests/uvicorn",
    "picows/web": "tests/web",
    "picows/websockets": "tests/websockets",
    "picows/upgrade": "tests/upgrade tests/connection",
    "picows/_core/keepalive": "tests/connection/test_keepalive.py tests/connection",
    "picows/": "tests/connection tests/streams tests/topics",
}
BUILD_TIME = 300.0  # seconds
# Most breaks that hang a test hang many.
TEST_TIME = 900.0

SEEN, NOT_SEEN, NO_PROGRAM, EXPLAINED_ALREADY = "seen", "NOT SEEN", "does not build", "same program"


@dataclasses.dataclass
class Verdict:
    mutation: Mutation
    outcome: str
    by: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="how many places are broken")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--files", default="", help="beginnings of paths, all by default")
    parser.add_argument("--only", type=int, help="the number of one break of this seed")
    parser.add_argument("--jobs", default="2", help="processes that test at the same time")
    parser.add_argument("--json", type=Path, help="where the verdicts are written, one a line")
    arguments = parser.parse_args()

    chosen = choose(arguments.seed, arguments.count, tuple(filter(None, arguments.files.split(","))))
    print(f"seed {arguments.seed}: {len(chosen)} breaks")
    explained = set(EXPLAINED.read_text(encoding="utf-8").splitlines())
    tree = copied_tree()
    check_unbroken(tree, chosen, arguments.jobs)
    verdicts = []
    for number, mutation in enumerate(chosen):
        if arguments.only in (None, number):
            is_explained = mutation.key in explained
            verdict = Verdict(mutation, EXPLAINED_ALREADY) if is_explained else judge(tree, mutation, arguments.jobs)
            verdicts.append(verdict)
            print(f"{number} {verdict.outcome} {verdict.by}\n  {mutation}", flush=True)
            if arguments.json is not None:
                with arguments.json.open("a", encoding="utf-8") as output:
                    told = {"key": mutation.key, "outcome": verdict.outcome, "by": verdict.by}
                    output.write(json.dumps(told) + "\n")
    return summary(verdicts)


def choose(seed: int, count: int, beginnings: tuple[str, ...]) -> list[Mutation]:
    """As many from each file as it has of all that can be broken."""
    files = sorted({path.relative_to(ROOT) for pattern in SOURCES for path in ROOT.glob(pattern)})
    everything = [
        mutation
        for path in files
        if not beginnings or path.as_posix().startswith(beginnings)
        for mutation in mutations(ROOT, path)
    ]
    return random.Random(seed).sample(everything, min(count, len(everything)))


def copied_tree() -> Path:
    tree = ROOT / "build" / "mutation"
    tree.mkdir(parents=True, exist_ok=True)
    for name in SOURCES_OF_TESTS:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy2(source, target)
    if not built(tree):
        raise SystemExit("the tree does not build unbroken")
    return tree


def built(tree: Path) -> bool:
    environment = {**os.environ, "PICOWS_BUILD_EXAMPLES": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    with (tree / "build.log").open("wb") as log:
        try:
            subprocess.run(command, cwd=tree, env=environment, stdout=log, stderr=log, timeout=BUILD_TIME, check=True)
            return True
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False


def judge(tree: Path, mutation: Mutation, jobs: str) -> Verdict:
    whole = (tree / mutation.path).read_text(encoding="utf-8")
    mutation.apply(tree)
    try:
        if not built(tree):
            return Verdict(mutation, NO_PROGRAM)
        return Verdict(mutation, *tested(tree, tests_of(mutation.path.as_posix()), jobs))
    finally:
        (tree / mutation.path).write_text(whole, encoding="utf-8")


def tests_of(path: str) -> str:
    return next(tests for beginning, tests in TESTS.items() if path.startswith(beginning))


def check_unbroken(tree: Path, chosen: list[Mutation], jobs: str) -> None:
    """A test that fails without a break would see them all."""
    for tests in sorted({tests_of(mutation.path.as_posix()) for mutation in chosen}):
        outcome, by = tested(tree, tests, jobs)
        if outcome == SEEN:
            raise SystemExit(f"without any break there is {by} in {tests}")


def tested(tree: Path, tests: str, jobs: str) -> tuple[str, str]:
    command = [sys.executable, "-m", "pytest", "-qx", "-n", jobs, "--dist", "worksteal", "-p", "no:cacheprovider", *tests.split()]
    try:
        ended = subprocess.run(command, cwd=tree, capture_output=True, text=True, errors="replace", timeout=TEST_TIME, check=False)
    except subprocess.TimeoutExpired:
        return SEEN, "no end"
    if ended.returncode == 0:
        return NOT_SEEN, ""
    told = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return SEEN, told[0].split(" - ")[0] if told else ended.stdout.strip()[-100:]


def summary(verdicts: list[Verdict]) -> int:
    for outcome in (SEEN, NO_PROGRAM, EXPLAINED_ALREADY, NOT_SEEN):
        print(f"{outcome}: {sum(verdict.outcome == outcome for verdict in verdicts)}")
    survivors = [verdict.mutation for verdict in verdicts if verdict.outcome == NOT_SEEN]
    for mutation in survivors:
        print(mutation)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
