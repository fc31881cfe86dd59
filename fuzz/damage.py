"""What the fuzz targets share: inputs made at random are checked for a while, and one that fails is told."""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Callable


def run(description: str, some_input: Callable[[random.Random], bytes], check: Callable[[bytes], None]) -> None:
    """Check inputs for as long as the command line says. The seed that is printed makes the same ones again."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    arguments = parser.parse_args()

    chance = random.Random(arguments.seed)
    end = time.monotonic() + arguments.seconds
    runs = 0
    while time.monotonic() < end:
        data = some_input(chance)
        try:
            check(data)
        except BaseException:
            print(f"seed {arguments.seed}, run {runs}, input {data.hex()}", file=sys.stderr)
            raise
        runs += 1
    print(f"{runs} inputs from seed {arguments.seed}, no failure")
