"""The package as a user gets it: an sdist of this checkout, a wheel of that sdist, installed in a folder of its own."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

FOLDERS = ["conformance", "docs", "examples", "fuzz", "mutation", "picows", "profiling", "release", "tests"]
FILES = ["HISTORY.rst", "LICENSE", "MANIFEST.in", "Makefile", "README.rst", "SECURITY.md", "pyproject.toml", "setup.py"]
FILES += sorted(path.name for path in CHECKOUT.glob("requirements-*.txt"))
SOURCES = [*FOLDERS, *FILES]


@dataclass(frozen=True)
class Installation:
    sdist: Path
    wheel: Path
    site: Path  # what stands for site-packages
    elsewhere: Path  # an empty folder to run in, so that the checkout is not imported

    def run(self, *args: str, cwd: Path | None = None) -> str:
        """Run the interpreter of the tests with the installed package; returns what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        return run([sys.executable, *args], cwd or self.elsewhere, environment)


def run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
    return done.stdout


def copy_sources(folder: Path) -> None:
    """What an sdist is made from. In the checkout an old egg-info might lie, whose list of files would count."""
    folder.mkdir(exist_ok=True)
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            shutil.copy(CHECKOUT / name, folder / name)


@functools.cache
def install(tests_folder: Path) -> Installation:
    """Build and install below the folder of the test run, once for all its workers."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        tests_folder = tests_folder.parent  # what is given is the worker's own
    folder = tests_folder / "installation"
    with (tests_folder / "installation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "site").exists():
            build(folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Installation(sdist, wheel, folder / "site", folder / "elsewhere")


def build(folder: Path) -> None:
    """Build and install in the new `folder`, by the tools of the test environment: the network is not used."""
    folder.mkdir()
    compiler = folder / "cc"
    usual = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    compiler.write_text(f'#!/bin/sh\nexec {usual} "$@" -O0\n', encoding="utf-8")
    compiler.chmod(0o755)
    source, site, elsewhere = folder / "source", folder / "site", folder / "elsewhere"
    elsewhere.mkdir()
    copy_sources(source)
    # Most of the time would go into optimisation, which nothing here depends on.
    environment = {**os.environ, "CC": str(compiler)}
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)], elsewhere, environment)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run([*pip, "--target", str(site), str(wheel)], elsewhere)
