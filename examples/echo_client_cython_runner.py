"""Runs the echo client written in Cython, which has to be compiled first:

$ PICOWS_BUILD_EXAMPLES=1 python setup.py build_ext --inplace
$ python -m examples.echo_client_cython_runner --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter

from picows import ws_connect

from .echo_client_cython import EchoClient  # type: ignore[import-not-found]


async def main(url: str, round_trips: int) -> None:
    client = EchoClient(round_trips)
    start = perf_counter()
    transport, _ = await ws_connect(lambda: client, url)
    await transport.wait_disconnected()
    print(f"{client.round_trips} round trips in {perf_counter() - start:.3f} seconds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    parser.add_argument("--round-trips", type=int, default=10_000)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.round_trips))
