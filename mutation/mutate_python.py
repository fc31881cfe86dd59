"""Breaks the Python modules, one place at a time, and looks whether a test sees it.

    python -m mutation.mutate_python --count 60 [--seed 7] [--files picows/client.py,picows/upgrade] [--seconds 1800]

In a copy of the tree, below build/, the tests run once unbroken, and coverage notes which of them run which line. Then each break
is tested by the tests that run its line, the quickest first; a place that runs on import by those that run a line of its module.
A break that no test sees is printed, and has to get a test, or a place in mutation/same_program.txt, below a sentence why
the program is the same.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from coverage import CoverageData

from tests.packaging.installation import SOURCES

from .python_mutations import Mutation, Place, places

ROOT = Path(__file__).parents[1]
TREE = ROOT / "build" / "mutation-python"
EXPLAINED = Path(__file__).with_name("same_program.txt")

# The tests of a file, by the beginning of its path.
TESTS = {
    "picows/web": "tests/web",
    "picows/websockets": "tests/websockets",
    "picows/uvicorn": "tests/uvicorn",
    "picows/cli": "tests/cli",
    "picows/brokers": "tests/brokers tests/topics",
    "picows/_broker": "tests/topics",
    "picows/_envelope": "tests/topics",
    "picows/_members": "tests/topics",
    "picows/_subscriptions": "tests/topics",
    "picows/_topic": "tests/topics",
    "picows/topics": "tests/topics",
    "picows/upgrade": "tests/upgrade tests/connection",
    "picows/deflate": "tests/deflate tests/connection",
    "picows/": "tests/test_url.py tests/test_errors.py tests/test_settings.py tests/test_busy_poll.py tests/connection",
}
ON_IMPORT = ("tests/test_settings.py", "tests/connection/test_defaults.py")
PYTEST = ["-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
# Seconds that a test may take, beside ten times what it takes without a break.
TEST_TIME = 10.0
# Where hundreds of tests run a line, as many are tried as take this time without a break.
TRIED_TIME = 8.0

SEEN, NOT_SEEN, EXPLAINED_ALREADY = "seen", "NOT SEEN", "same program"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="how many places are broken")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--files", default="", help="beginnings of paths, all by default")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after these no further place is broken")
    parser.add_argument("--only", type=int, help="the number of one break of this seed")
    parser.add_argument("--runs", type=Path, help="where an earlier run noted which tests run which line; written if it is missing")
    parser.add_argument("--json", type=Path, help="where the verdicts are written, one a line")
    arguments = parser.parse_args()

    copy_tree()
    files = chosen_files(tuple(filter(None, arguments.files.split(","))))
    everything = [place for path in files for place in places(TREE, path)]
    runs = Runs(arguments.runs or TREE / "runs", sorted({test for path in files for test in tests_of(path).split()}))
    jury = Jury(runs)
    for path in sorted({place.path for place in everything}):
        jury.has_to_see_all_broken(path)

    print(f"seed {arguments.seed}: {arguments.count} of {len(everything)} places, in {len(files)} files", flush=True)
    end = time.monotonic() + arguments.seconds
    explained = set(EXPLAINED.read_text(encoding="utf-8").splitlines())
    outcomes, survivors = [], []
    for number, mutation in enumerate(drawn(everything, arguments.seed, arguments.count)):
        if arguments.only not in (None, number):
            continue
        if time.monotonic() > end:
            print(f"{arguments.seconds:.0f} seconds are over")
            break
        outcome, by = (EXPLAINED_ALREADY, "") if mutation.key in explained else jury.verdict(mutation)
        outcomes.append(outcome)
        if outcome == NOT_SEEN:
            survivors.append(mutation)
        print(f"{number} {outcome} {by}\n  {mutation}", flush=True)
        if arguments.json is not None:
            with arguments.json.open("a", encoding="utf-8") as output:
                output.write(json.dumps({"key": mutation.key, "outcome": outcome, "by": by}) + "\n")

    print(*(f"{each}: {outcomes.count(each)}" for each in (SEEN, EXPLAINED_ALREADY, NOT_SEEN)), *survivors, sep="\n")
    return 1 if survivors else 0


def chosen_files(beginnings: tuple[str, ...]) -> list[Path]:
    paths = sorted(path.relative_to(TREE) for path in TREE.glob("picows/**/*.py"))
    return [path for path in paths if not beginnings or path.as_posix().startswith(beginnings)]


def tests_of(path: Path) -> str:
    return next(tests for beginning, tests in TESTS.items() if path.as_posix().startswith(beginning))


def drawn(everything: list[Place], seed: int, count: int) -> Iterator[Mutation]:
    """Breaks in the order of chance; what does not compile, or to the same, is no break."""
    shuffled = random.Random(seed).sample(everything, len(everything))
    for place in shuffled:
        mutation = place.mutation(TREE)
        if mutation.is_program:
            yield mutation
            count -= 1
        if count == 0:
            return


def copy_tree() -> None:
    for name in SOURCES:
        source, target = ROOT / name, TREE / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


class Runs:
    """Which tests run which line, and how long they take; those that fail without a break are left out."""

    def __init__(self, folder: Path, tests: list[str]):
        folder = folder.absolute()
        if not (folder / "times.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _note(folder, tests)
        self.seconds: dict[str, float] = json.loads((folder / "times.json").read_text(encoding="utf-8"))
        self._data = CoverageData(str(folder / "coverage"))
        self._data.read()
        self._tree = (folder / "tree").read_text(encoding="utf-8")

    def tests(self, place: Place) -> list[str]:
        found = self.running(place.path, place.statement)
        return found if place.statement else [*dict.fromkeys([*self._look_at_what_is_imported, *found])]

    def running(self, path: Path, lines: range) -> list[str]:
        """The tests that run one of these lines, or any of the file where none is named."""
        by_line = self._data.contexts_by_lineno(f"{self._tree}/{path}")
        contexts = {context for line in lines or by_line for context in by_line.get(line, ())}
        tests = {context.rpartition("|")[0] for context in contexts} & self.seconds.keys()
        # What runs in other processes only, or before all tests, is noted for none.
        return self._quickest(tests or {test for test in self.seconds if test.startswith(tuple(tests_of(path).split()))})

    @functools.cached_property
    def _look_at_what_is_imported(self) -> list[str]:
        """Tests of signatures, constants and documentation, which run no line of it."""
        by_line = (self._data.contexts_by_lineno(file) for file in self._data.measured_files())
        contexts = {context for lines in by_line for contexts in lines.values() for context in contexts}
        run_nothing = self.seconds.keys() - {context.rpartition("|")[0] for context in contexts}
        return self._quickest(run_nothing.union(test for test in self.seconds if test.startswith(ON_IMPORT)))

    def _quickest(self, tests: set[str]) -> list[str]:
        """The quickest of every file first, then the next of every file."""
        by_file: dict[str, list[str]] = {}
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            by_file.setdefault(test.partition("::")[0], []).append(test)
        in_turns = itertools.chain(*itertools.zip_longest(*by_file.values()))
        chosen: list[str] = []
        spent = 0.0
        for test in filter(None, in_turns):
            spent += self.seconds[test]
            if chosen and spent > TRIED_TIME:
                break
            chosen.append(test)
        return chosen


def _note(folder: Path, tests: list[str]) -> None:
    print(f"which lines run, by {' '.join(tests)}", flush=True)
    told = _told_by([*tests, "--cov=picows", "--cov-context=test", "--cov-report="], COVERAGE_FILE=str(folder / "coverage"))
    seconds: dict[str, float] = {}
    for spent, test in re.findall(r"^([\d.]+)s (?:setup|call|teardown) +(\S.*)$", told, re.MULTILINE):
        seconds[test] = seconds.get(test, 0.0) + float(spent)
    if not seconds:
        raise SystemExit(f"no test runs without a break:\n{told[-3000:]}")
    failed = _failed(told)
    if failed:  # the tracing keeps frames alive, which some tests notice
        failed = _failed(_told_by(failed))
    print(f"{len(seconds)} tests, {len(failed)} of which fail without any break: {' '.join(failed)}")
    (folder / "tree").write_text(str(TREE), encoding="utf-8")
    passed = {test: seconds[test] for test in seconds if test not in failed}
    (folder / "times.json").write_text(json.dumps(passed), encoding="utf-8")


def _told_by(args: list[str], **environment: str) -> str:
    command = [sys.executable, "-m", "pytest", *PYTEST, "-vv", "-rfE", "--durations=0", "-o", "timeout=300", *args]
    return subprocess.run(
        command, cwd=TREE, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    ).stdout


def _failed(told: str) -> list[str]:
    return sorted(set(re.findall(r"^(?:FAILED|ERROR) (tests/\S.*?)(?: - .*)?$", told, re.MULTILINE)))


class Jury:
    """The process that forks one for each break."""

    def __init__(self, runs: Runs):
        self._runs = runs
        forks = [sys.executable, str(Path(__file__).with_name("forks.py"))]
        self._process = subprocess.Popen(forks, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def has_to_see_all_broken(self, path: Path) -> None:
        """That the tests load the file that is broken, and not another copy of it."""
        whole = (TREE / path).read_text(encoding="utf-8")
        rewrite(TREE / path, "raise SystemError('broken as a whole')\n")
        outcome, _ = self._tested(self._runs.running(path, range(0))[:20])
        rewrite(TREE / path, whole)
        if outcome != SEEN:
            raise SystemExit(f"no test sees that {path} is broken as a whole")

    def verdict(self, mutation: Mutation) -> tuple[str, str]:
        rewrite(TREE / mutation.place.path, mutation.mutated)
        try:
            return self._tested(self._runs.tests(mutation.place))
        finally:
            rewrite(TREE / mutation.place.path, mutation.source)

    def _tested(self, tests: list[str]) -> tuple[str, str]:
        """What fails once and passes then is not used: on a loaded machine a test may be late."""
        while tests:
            code, failed = self._run(tests)
            if code == 0:
                break
            if failed not in tests:  # all fail, or none ends
                return SEEN, "no end" if code is None else failed or f"exit status {code}"
            if self._run([failed])[0] != 0:
                return SEEN, failed
            tests = [test for test in tests if test != failed]
        return NOT_SEEN, f"by {len(tests)} tests"

    def _run(self, tests: list[str]) -> tuple[int | None, str]:
        """The exit status and the first that failed."""
        spent = [self._runs.seconds[test] for test in tests]
        args = [*PYTEST, "-x", "-rfE", "--tb=no", "-o", f"timeout={TEST_TIME + 10 * max(spent):.0f}", *tests]
        args += ["-p", "no:xdist", "-p", "no:cov", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        seconds = 4 * TEST_TIME + 10 * sum(spent)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"args": args, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], next(iter(_failed(answer["output"])), "")


def rewrite(file: Path, text: str) -> None:
    """And forget what was compiled of it: a time stamp in seconds would not tell."""
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()


if __name__ == "__main__":
    sys.exit(main())
