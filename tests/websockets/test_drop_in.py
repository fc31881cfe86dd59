"""The module in the place of the package `websockets`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.websockets.servers import INSTALLED

ROOT = Path(__file__).parents[2]

IN_ITS_PLACE = "import sys\nimport picows.websockets\nsys.modules['websockets'] = picows.websockets\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_module_is_there_once() -> None:
    code = IN_ITS_PLACE + (
        "import websockets.exceptions, websockets.frames\n"
        "from websockets import ConnectionClosed, exceptions\n"
        "from websockets.exceptions import ConnectionClosed as again\n"
        "assert websockets is picows.websockets\n"
        "assert websockets.exceptions is exceptions is sys.modules['picows.websockets.exceptions']\n"
        "assert ConnectionClosed is again is picows.websockets.ConnectionClosed\n"
        "assert exceptions.__name__ == exceptions.__spec__.name == 'picows.websockets.exceptions'\n"
    )
    run(code)


def test_a_module_need_not_be_imported_by_its_name() -> None:
    run("import picows.websockets as ws\nassert ws.headers.parse_connection('a, b') == ['a', 'b']")


def test_it_can_be_loaded_anew() -> None:
    """As programs do that load changed code."""
    count = "sum(type(finder).__name__ == 'Finder' for finder in sys.meta_path)"
    run(IN_ITS_PLACE + f"import importlib\nimportlib.reload(picows.websockets)\nassert {count} == 1")


def test_it_does_not_take_itself_for_the_package() -> None:
    print_home = "from websockets.exceptions import ConnectionClosed\nprint(ConnectionClosed.__module__)"
    assert run(IN_ITS_PLACE + print_home) == "picows.websockets.exceptions\n"


@pytest.mark.needs_websockets
@pytest.mark.skipif(not INSTALLED, reason="the types of an older websockets are not taken")
def test_libraries_that_were_imported_before_know_its_errors() -> None:
    code = "from websockets.exceptions import ConnectionClosed\n" + IN_ITS_PLACE
    run(code + "from picows.websockets import ConnectionClosed as ours\nassert ours is ConnectionClosed")


def test_what_is_not_in_it_says_so_under_the_other_name() -> None:
    code = IN_ITS_PLACE + "try: import websockets.sync.client\nexcept ImportError as error: print(error)"
    assert "has no sync, which is of the API of threads" in run(code)


@pytest.mark.needs_websockets
def test_beside_the_package_it_leaves_that_alone() -> None:
    run("import picows.websockets, websockets.sync.client\nassert websockets is not picows.websockets")


def test_gql_works_on_it() -> None:
    pytest.importorskip("gql")
    program = [sys.executable, "tests/websockets/graphql_program.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "[0, 1, 2]",
        "received 4400 (private use) too many; then sent 4400 (private use) too many",
    ]
