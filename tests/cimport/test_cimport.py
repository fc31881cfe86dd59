from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.packaging.installation import Installation

pytestmark = pytest.mark.timeout(600)  # a busy machine compiles slowly

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def compiled(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    for name in ("user_listener.pyx", "build_user_listener.py", "echo.py"):
        shutil.copy(HERE / name, folder)
    installation.run("build_user_listener.py", "-q", "build_ext", "--inplace", cwd=folder)
    return folder


def test_a_compiled_listener_runs_on_the_installed_package(installation: Installation, compiled: Path) -> None:
    close, received = installation.run("echo.py", cwd=compiled).splitlines()
    assert close == "1001 seen enough"
    assert received == str(
        [(1, True, b"greeting"), (2, False, b"bytes"), (10, True, b"ping"), (8, True, b"")]
    ) + " [1, 2] True"


def test_what_a_user_cimports_needs_no_header_of_picows(compiled: Path) -> None:
    generated = (compiled / "user_listener.c").read_text()
    included = [line for line in generated.splitlines() if line.startswith("#include")]
    assert included
    assert not [line for line in included if "_native" in line or "picows" in line]
