"""The sdist built, and the tests run, with the oldest versions of all that pyproject.toml allows."""

from __future__ import annotations

import argparse
import re
import sys

from release.interpreters import interpreters
from release.wheels import CHECKOUT, TESTS, WORK, environment_for, make_sdist, output, run, try_out

# Asked of the environment, whose Python and machine decide what applies. Printed one a line: the dependencies and all extras.
_LOWEST = """
from importlib.metadata import metadata, requires
from packaging.requirements import Requirement

extras = metadata("picows").get_all("Provides-Extra")
for requirement in map(Requirement, requires("picows")):
    if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
        versions = [each.version for each in requirement.specifier if each.operator == ">="]
        requirement.marker = None
        print(str(requirement).replace(str(requirement.specifier), "") + "==" * bool(versions) + "".join(versions))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interpreter", default=sys.executable)
    parser.add_argument("--tests", default=TESTS)
    parser.add_argument("--pytest-args", default="")
    options = parser.parse_args()
    (interpreter,) = interpreters(options.interpreter)
    sdist = make_sdist(WORK / "sdist")
    python = environment_for(interpreter, WORK / f"oldest-{interpreter.version}")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-installed"]

    pyproject = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    (required,) = re.findall(r"^\[build-system\]\nrequires = \[(.*)\]$", pyproject, re.MULTILINE)
    building = [requirement.replace(">=", "==") for requirement in re.findall(r'"(.*?)"', required)]
    print("To build:", *building, flush=True)
    run([*pip, *building])
    run([*pip, "--no-deps", "--no-build-isolation", "--no-cache-dir", str(sdist)])

    running = output([python, "-c", _LOWEST]).splitlines()
    print("To run:", *running, flush=True)
    run([*pip, *running])
    try_out(python, options.tests, options.pytest_args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
