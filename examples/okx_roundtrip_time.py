"""Looking for a quick connection to an exchange: measure, and reconnect if it is too slow.

Behind one host name stand many machines. Each new connection may reach another of them by another
way, and their round-trip times differ.

$ python -m examples.okx_roundtrip_time --threshold 0.02
"""

from __future__ import annotations

import argparse
import asyncio

from picows import WSListener, WSTransport, ws_connect

OKX_URL = "wss://ws.okx.com:8443/ws/v5/public"


async def connect_quickly(
    url: str, threshold: float, rounds: int, attempts: int
) -> WSTransport | None:
    """A connection with a mean round-trip time of at most `threshold` seconds, if one is found."""
    for attempt in range(1, attempts + 1):
        transport, _ = await ws_connect(WSListener, url)
        # One PING at a time, each sent when the one before has been answered.
        times = await transport.measure_roundtrip_time(rounds)
        mean = sum(times) / rounds
        print(
            f"Attempt {attempt}: {mean * 1000:.3f} ms in the mean, "
            f"from {min(times) * 1000:.3f} to {max(times) * 1000:.3f}"
        )
        if mean <= threshold:
            return transport
        await transport.close()
    return None


async def main(url: str, threshold: float, rounds: int, attempts: int) -> None:
    transport = await connect_quickly(url, threshold, rounds, attempts)
    if transport is None:
        raise SystemExit(f"No connection within {threshold * 1000:g} ms")
    print("Quick enough")  # here the work would begin
    await transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=OKX_URL)
    parser.add_argument("--threshold", type=float, default=0.02, help="seconds")
    parser.add_argument("--rounds", type=int, default=10, help="pings to each connection")
    parser.add_argument("--attempts", type=int, default=5)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.threshold, args.rounds, args.attempts))
