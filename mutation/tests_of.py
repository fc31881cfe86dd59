"""Which tests are asked about a break: those that run its line, as coverage wrote it down, or else those of its file."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

from .mutations import Mutation

# By the beginning of a path, where no line was counted.
FILES = {
    "picows/_native/mask.h": ["tests/codec/test_mask.py", "tests/codec/test_frames.py"],
    "picows/_native/utf8.h": ["tests/codec/test_utf8.py", "tests/codec/test_properties.py"],
    "picows/_native": ["tests/connection/test_writes.py", "tests/connection/test_data.py", "tests/connection/test_threads.py"],
    "picows/upgrade": ["tests/upgrade"],
    "picows/websockets": ["tests/websockets"],
    "picows/": ["tests/connection"],
}


class Tests:
    def __init__(self, data: list[Path]) -> None:
        self.by_line: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for path in data:
            self._read(path)
        self.lines: Counter[str] = Counter(test for lines in self.by_line.values() for tests in lines.values() for test in tests)

    def _read(self, path: Path) -> None:
        from coverage import CoverageData

        data = CoverageData(str(path))
        data.read()
        for file in data.measured_files():
            name = file[file.rindex("/picows/") + 1 :] if "/picows/" in file else file
            if not name.endswith(".py"):
                for line, contexts in data.contexts_by_lineno(file).items():
                    self.by_line[name][line] |= {context.split("|")[0] for context in contexts if context}

    def of(self, mutation: Mutation) -> list[str]:
        """Those first that run little else; of each function one set of parameters, then the others."""
        name = mutation.path.as_posix()
        if name not in self.by_line:
            return next(files for beginning, files in FILES.items() if name.startswith(beginning))
        tests = self.by_line[name].get(mutation.number, set())
        chosen = sorted(tests)
        random.Random(mutation.key).shuffle(chosen)
        chosen.sort(key=lambda test: self.lines[test])
        first = {test.split("[")[0]: test for test in reversed(chosen)}
        return [test for test in chosen if first[test.split("[")[0]] == test] + [
            test for test in chosen if first[test.split("[")[0]] != test
        ]
