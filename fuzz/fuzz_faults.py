"""Connections over a proxy that breaks them: at any byte of the handshake, of TLS, of a frame or of the closing handshake.

The proxy cuts, resets, half-closes and black-holes, it delays, throttles, splits into single bytes and merges. Both sides are real:
callbacks and coroutines, frames, messages and compression, TCP and TLS, asyncio and uvloop, with and without aiofastnet. For
every connection: both sides end within their time limits, callbacks come once and in order, errors are the documented ones, what
was delivered is the begin of what was sent (all of it before a CLOSE), and nothing is left over. During a quarter of them a
signal interrupts the process about a thousand times a second.

    python fuzz/fuzz_faults.py --connections 1000 [--seed 7] [--only 345] [--networks asyncio-tcp,uvloop-tls-aiofastnet] [--jobs 2]

The seed and the number of a connection that went wrong are printed, and give the same connection, faults and messages again; when
the bytes travel is the machine's.
"""

from __future__ import annotations

import argparse
import sys

from batches import NETWORKS
from faults_worker import SIGNALS, TIME_LIMIT, work
from jobs import add_arguments, is_job, run_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, connections=1000, parallel=96, networks=",".join(map(str, NETWORKS)))
    parser.add_argument("--limit", type=float, default=TIME_LIMIT, help="seconds that a connection may take")
    parser.add_argument("--signals", choices=SIGNALS, default=SIGNALS[0], help="which connections signals interrupt")
    arguments = parser.parse_args()
    if is_job(arguments):
        work(arguments)
    else:
        sys.exit(run_jobs(arguments))


if __name__ == "__main__":
    main()
