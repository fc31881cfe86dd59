from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import picows
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


# What was compiled against the interface of a release runs on every later build of its major version.
RELEASES = sorted((HERE / "abi").glob("picows-*"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_what_an_earlier_release_compiled_runs_today(
    installation: Installation, release: Path, tmp_path: Path
) -> None:
    for path in (HERE / "abi").glob("*.py*"):
        shutil.copy(path, tmp_path)
    installation.run("build_caller.py", "-q", "build_ext", "--inplace", "--", str(release), cwd=tmp_path)
    interfaces = [line for line in (tmp_path / "caller.c.dep").read_text().splitlines() if "picows.pxd" in line]
    assert [release.name in line for line in interfaces] == [True]

    # An object that is larger than it was is told by a warning only.
    lines = installation.run("-W", "error", "run_caller.py", cwd=tmp_path).splitlines()
    received, told = lines[:11], lines[11:]
    assert received == [
        "TEXT 1100 b'send'",
        "TEXT 0010 b'send'",
        "CONTINUATION 1001 b'bytearray'",
        "BINARY 1011 b'buffer'",
        "PING 1000 b'ping'",
        "PONG 1000 b'pong'",
        "PING 1000 b''",
        "BINARY 1000 8388608",
        "TEXT 1000 b'answer'",
        "PING 1000 b'mine'",
        r"CLOSE 1000 b'\x03\xe9seen enough'",
    ]
    assert told.count("pong") == 3
    assert told.count("pause_writing") == told.count("resume_writing") >= 1
    assert [call for call in told if call not in ("pong", "pause_writing", "resume_writing")] == [
        "on_ws_connected",
        r"1 b'\xc3\xbc'",
        "0 b'c'",
        r"2 b'\x00\x00\x00\x00'",
        "send_user_specific_ping",
        "is_user_specific_pong",
        "close 4000 b'done' done",
        "on_ws_disconnected",
    ]


def test_the_interface_of_this_major_version_is_kept() -> None:
    """A release adds a folder here; docs/contributing.rst says how."""
    (major, *_) = picows.__version__.split(".")
    assert [release for release in RELEASES if release.name.startswith(f"picows-{major}.")]
