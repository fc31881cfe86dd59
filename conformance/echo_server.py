"""An echo server for the testsuite's fuzzing client. It prints its URL and goes on until it is terminated.

$ python -m conformance.echo_server --loop uvloop --port 9001
"""

from __future__ import annotations

import argparse
import asyncio

from conformance.echo import LOOPS, SETTINGS, Echo, run
from picows import ws_create_server


async def main(port: int) -> None:
    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", port, **SETTINGS)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 for any free port")
    arguments = parser.parse_args()
    run(main(arguments.port), arguments.loop)
