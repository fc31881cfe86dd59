"""The package as a user gets it: an sdist of this checkout, a wheel of that sdist, installed in a folder of its own."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from importlib import metadata
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
    source, site, elsewhere = folder / "source", folder / "site", folder / "elsewhere"
    elsewhere.mkdir()
    copy_sources(source)
    build_sdist = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(folder), str(source)]
    run(build_sdist, elsewhere)
    (sdist,) = folder.glob("*.tar.gz")
    trusting_less = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive(sdist, folder / "unpacked", **trusting_less)
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = wheel_of(unpacked, folder)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run([*pip, "--target", str(site), str(wheel)], elsewhere)


def wheel_of(unpacked: Path, folder: Path) -> Path:
    """A wheel, put into the folder. As with the modules in place, nothing is built twice from the same contents."""
    kept = CHECKOUT / "build" / f"tests-wheel{sysconfig.get_config_var('EXT_SUFFIX')}"
    kept.mkdir(parents=True, exist_ok=True)
    stamp, made_from = kept / "inputs.sha256", inputs(unpacked)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_from:
            stamp.unlink(missing_ok=True)
            for older in kept.glob("*.whl"):
                older.unlink()
            command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(kept), str(unpacked)]
            run(command, folder, building(folder))
            stamp.write_text(made_from, encoding="utf-8")
        (wheel,) = kept.glob("*.whl")
        return Path(shutil.copy(wheel, folder))


def inputs(unpacked: Path) -> str:
    """A digest of all that makes the wheel what it is."""
    versions = [metadata.version(name) for name in ("build", "Cython", "setuptools")]
    digest = hashlib.sha256(repr([sys.version, sys.prefix, os.environ.get("CC"), *versions]).encode())
    digest.update(Path(__file__).read_bytes())
    files = [unpacked / name for name in ("LICENSE", "MANIFEST.in", "README.rst", "pyproject.toml", "setup.py")]
    for path in [*files, *sorted((unpacked / "picows").rglob("*"))]:
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(unpacked)} {content}\n".encode())
    return digest.hexdigest()


def building(folder: Path) -> dict[str, str]:
    """An environment without optimisation, which nothing here depends on, and with what Cython has translated in place."""
    compiler = folder / "cc"
    usual = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    compiler.write_text(f'#!/bin/sh\nexec {usual} "$@" -O0\n', encoding="utf-8")
    compiler.chmod(0o755)
    return {"CYTHON_CACHE_DIR": str(CHECKOUT / "build" / "cython"), **os.environ, "CC": str(compiler)}
