"""The build in place: what the rest of the tests run on is what they are meant to run on."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import picows

CHECKOUT = Path(__file__).parents[1]


def requirement_names(text: str) -> set[str]:
    return {re.split(r"[\s;<>=#]", line)[0] for line in text.splitlines() if re.match(r"\w", line)}


@pytest.mark.parametrize(
    "name", ["_asgi", "_messages", "_streams", "picows", "upgrade._fields", "web._stream", "websockets.asyncio.connection"]
)
def test_the_compiled_module_is_loaded(name: str) -> None:
    module = importlib.import_module(f"picows.{name}")
    assert str(module.__file__).endswith(sysconfig.get_config_var("EXT_SUFFIX"))


def test_the_version_stands_in_both_places() -> None:
    pyproject = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.*?)"', pyproject, re.MULTILINE)
    assert picows.__version__ == version


def test_the_test_environment_holds_all_that_the_package_depends_on() -> None:
    pyproject = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    declared = pyproject.split("dependencies = [\n")[1].split("\n\n[project.scripts]")[0]
    # The first string of a line; what is quoted behind it belongs to its marker.
    needed = requirement_names("\n".join(re.findall(r'^(?:    |\w+ = \[)"+(.*?)"', declared, re.MULTILINE)))
    assert {"httptools", "multidict", "python-socks[asyncio]", "aiofastnet", "isal", "prompt_toolkit", "uvloop"} <= needed
    files = ("requirements-test.txt", "requirements-test-gil.txt")
    assert needed <= requirement_names("\n".join((CHECKOUT / name).read_text(encoding="utf-8") for name in files))


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this CPython has a GIL")
def test_the_gil_stays_off() -> None:
    # A process of its own: the tests may have imported something that turned it on.
    script = "import sys, picows, picows._streams, aiofastnet; sys.exit(sys._is_gil_enabled())"
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=CHECKOUT, check=True)
