"""``picows ping``: round-trip times by PING frames, and a summary as ping has it."""

from __future__ import annotations

import argparse
import asyncio
import statistics

from .. import WSListener, WSTransport
from .dialing import dial, peer_of


async def main(options: argparse.Namespace) -> int:
    transport, _ = await dial(WSListener(), options)
    peer = peer_of(transport)
    print(f"PING {options.url} ({peer})", flush=True)
    times: list[float] = []
    sent = 0
    try:
        while options.count is None or sent < options.count:
            if sent:
                await asyncio.sleep(options.interval)
            sent += 1
            try:
                seconds = await _round_trip(transport, options.wait)
            except asyncio.TimeoutError:
                print(f"no pong within {options.wait:g} s: seq={sent}", flush=True)
            else:
                times.append(seconds)
                print(f"pong from {peer}: seq={sent} time={seconds * 1e3:.3f} ms", flush=True)
    except ConnectionResetError:
        print(f"the connection was lost ({transport.close_code})")
        await _leave(transport)
    except asyncio.CancelledError:
        # Ctrl+C is how a ping without a count ends.
        await _leave(transport)
        if options.count is not None:
            _summarize(options.url, sent, times)
            raise
    else:
        await _leave(transport)
    _summarize(options.url, sent, times)
    return 0 if times else 1


async def _round_trip(transport: WSTransport, limit: float) -> float:
    return (await asyncio.wait_for(transport.measure_roundtrip_time(1), limit))[0]


async def _leave(transport: WSTransport) -> None:
    await transport.close(timeout=1)


def _summarize(url: str, sent: int, times: list[float]) -> None:
    lost = 100 * (sent - len(times)) / sent if sent else 0
    print(f"\n--- {url} ---")
    print(f"{sent} pings sent, {len(times)} pongs received, {lost:.0f}% lost")
    if times:
        milliseconds = [seconds * 1e3 for seconds in times]
        shown = (
            min(milliseconds),
            statistics.mean(milliseconds),
            max(milliseconds),
            statistics.pstdev(milliseconds),
        )
        print("round trip min/avg/max/stddev = {:.3f}/{:.3f}/{:.3f}/{:.3f} ms".format(*shown))
