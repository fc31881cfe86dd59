"""How `picows.websockets` stands in the place of the package `websockets`, and what it has no module for.

After ``sys.modules["websockets"] = picows.websockets`` an ``import websockets.exceptions`` would load the file of our
module a second time under the other name, with types of its own. The finder gives the one module that there is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

OURS = __name__.rpartition(".")[0]
STOOD_FOR = "websockets"

ABSENT = {
    "auth": "the legacy API",
    "cli": "the command line",
    "client": "the Sans-I/O API; websockets.asyncio.client is there",
    "connection": "the Sans-I/O API; websockets.asyncio.connection is there",
    "http": "the legacy API",
    "legacy": "the legacy API",
    "server": "the Sans-I/O API; websockets.asyncio.server is there",
    "streams": "the Sans-I/O API",
    "sync": "the API of threads",
    "trio": "the API for Trio",
}


ABSENT_NAMES = dict.fromkeys(("ClientProtocol", "Protocol", "ServerProtocol"), "the Sans-I/O API")


def absent(name: str) -> ImportError:
    what = ABSENT.get(name) or ABSENT_NAMES[name]
    return ImportError(
        "picows.websockets is the asyncio API of the package websockets; "
        f"it has no {name}, which is of {what}"
    )


class Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(f"{STOOD_FOR}.")
        if not rest or package not in ("", "picows."):
            return None
        standing_in = not package
        if standing_in and getattr(sys.modules.get(STOOD_FOR), "__name__", None) != OURS:
            return None
        if rest in ABSENT:
            raise absent(rest)
        return spec_from_loader(fullname, _Alias(f"{OURS}.{rest}")) if standing_in else None


class _Alias(Loader):
    """Loads nothing: the module under its other name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        # The import system writes the other name into it.
        self.own = {name: getattr(module, name) for name in ("__spec__", "__loader__", "__package__", "__name__")}
        return module

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self.own)


def take_place() -> None:
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
