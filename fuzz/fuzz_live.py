"""Live connections on loopback, whose listeners do all that a listener may do inside every callback.

picows is on one side, against a raw peer that damages its stream, reads slowly or not, half-closes and resets; or on both
sides. Every message carries a number and a checksum: what arrives has to be what `send` took, in order and undamaged, and all
of it after a graceful end towards a peer that reads. TCP and TLS, asyncio and uvloop, with and without aiofastnet.

    python fuzz/fuzz_live.py --connections 1000 [--seed 7] [--only 345] [--networks asyncio-tcp,uvloop-tls-aiofastnet] [--jobs 2]

The seed and the number of a connection that went wrong are printed, and give the same connection again (its options, its
peer and the random numbers of its listeners; the moment of each event is the machine's). `--first 300 --connections 64` repeats it
among its neighbours, which share its event loop and its thread.
"""

from __future__ import annotations

import argparse
import sys

from batches import NETWORKS
from jobs import add_arguments, is_job, run_jobs
from live_worker import TIME_LIMIT, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, connections=1000, parallel=64, networks=",".join(map(str, NETWORKS)))
    parser.add_argument("--limit", type=float, default=TIME_LIMIT, help="seconds that a connection may take")
    parser.add_argument("--without", default="", help="names of actions to leave out, for example leave,fail,run_nested")
    parser.add_argument("--no-nested", dest="nested", action="store_false", help="run no loop inside a callback")
    arguments = parser.parse_args()
    if is_job(arguments):
        work(arguments)
    else:
        sys.exit(run_jobs(arguments))


if __name__ == "__main__":
    main()
