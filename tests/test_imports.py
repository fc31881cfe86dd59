"""What `import picows` loads: what a plain client does without is imported when it is asked for."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import picows

CHECKOUT = Path(__file__).parents[1]

# Of picows, what a client needs.
LOADED = {
    "picows", "picows._deadline", "picows._messages", "picows._tracebacks", "picows.arguments", "picows.busy_poll",
    "picows.client", "picows.deflate", "picows.errors", "picows.picows", "picows.proxy", "picows.settings", "picows.stats",
    "picows.tls", "picows.upgrade", "picows.upgrade._fields", "picows.upgrade.client", "picows.upgrade.grammar",
    "picows.upgrade.messages", "picows.upgrade.server", "picows.url",
}  # fmt: skip

# Of other packages; multidict needs the last one on old versions of Python.
THIRD_PARTY = {"httptools", "multidict", "typing_extensions"}

# Slow to import, and wanted by few.
NOT_FROM_THE_STANDARD_LIBRARY = {"email", "http.client", "importlib.metadata", "random", "urllib.request", "uuid"}

# aiofastnet, where it is installed, makes the connections; what it loads is its own business.
NEW_MODULES = """
import asyncio, contextlib, json, sys
with contextlib.suppress(ImportError):
    import aiofastnet
before = set(sys.modules)
{}
new = {{name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}}
print(json.dumps(new))
"""


def in_a_new_process(script: str) -> Any:
    """What a script prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def modules_by(statement: str) -> dict[str, str | None]:
    """The modules that a statement loads once asyncio and aiofastnet are there, and their files."""
    loaded: dict[str, str | None] = in_a_new_process(NEW_MODULES.format(statement))
    return loaded


def packages_among(modules: dict[str, str | None]) -> set[str]:
    installed = (name for name, file in modules.items() if file and "site-packages" in file)
    return {name.partition(".")[0].partition("__mypyc")[0] for name in installed} - {"picows"}


def test_importing_picows_loads_what_a_client_needs() -> None:
    modules = modules_by("import picows")
    assert {name for name in modules if name.partition(".")[0] == "picows"} == LOADED
    assert packages_among(modules) <= THIRD_PARTY
    assert not NOT_FROM_THE_STANDARD_LIBRARY & modules.keys()


def test_a_connection_without_a_proxy_loads_nothing_for_proxies() -> None:
    modules = modules_by("""
import picows
with contextlib.suppress(ConnectionRefusedError):
    asyncio.run(picows.ws_connect(picows.WSListener, "ws://127.0.0.1:1/", use_aiofastnet=False))
""")
    assert {name for name in modules if name.partition(".")[0] == "picows"} == LOADED
    assert packages_among(modules) <= THIRD_PARTY


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("WSBackoff", "reconnect"),
        ("WSBrokeredTopics", "topics"),
        ("WSServer", "server"),
        ("WSShutdownReport", "server"),
        ("WSTopics", "topics"),
        ("ws_adopt", "adopt"),
        ("ws_create_server", "server"),
        ("ws_reconnect", "reconnect"),
    ],
)
def test_a_name_is_there_when_it_is_asked_for(name: str, module: str) -> None:
    script = (
        f"import json, sys, picows; assert 'picows.{module}' not in sys.modules; from picows import {name};"
        f"assert {name} is picows.{name} is picows.{module}.{name} and '{name}' in vars(picows);"
        f"print(json.dumps('picows.{module}' in sys.modules))"
    )
    assert in_a_new_process(script) is True


def test_modules_are_attributes_before_they_are_loaded() -> None:
    """`import picows` was enough for `picows.server.WSServer` before."""
    script = "import json, picows; print(json.dumps([getattr(picows, name).__name__ for name in {!r}]))"
    names = ["adopt", "reconnect", "server", "topics"]
    assert in_a_new_process(script.format(names)) == [f"picows.{name}" for name in names]


def test_what_is_there_is_told_before_it_is_loaded() -> None:
    listed = in_a_new_process("import json, picows; print(json.dumps(dir(picows)))")
    assert {*picows.__all__, "adopt", "reconnect", "server", "topics"} <= set(listed)


def test_a_star_imports_all() -> None:
    script = "import json; before = {*globals(), 'before'}\nfrom picows import *\nprint(json.dumps([*{*globals()} - before]))"
    assert sorted(in_a_new_process(script)) == sorted(picows.__all__)


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="module 'picows' has no attribute 'ws_conect'"):
        picows.ws_conect  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="ws_conect"):
        from picows import ws_conect  # type: ignore[attr-defined]  # noqa: F401


def test_pickles_find_what_is_not_loaded() -> None:
    """A class is in its module to pickle, which loads it."""
    pickled = pickle.dumps(picows.WSBackoff(initial=2))
    script = f"import json, pickle, picows; print(json.dumps(pickle.loads({pickled!r}).initial))"
    assert in_a_new_process(script) == 2
