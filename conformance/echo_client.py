"""An echo client for the testsuite's fuzzing server: it goes through all the cases, then asks for the report.

$ AUTOBAHN_URL=ws://127.0.0.1:9001 python -m conformance.echo_client --loop uvloop
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from conformance.echo import LOOPS, SETTINGS, Echo, run
from picows import WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport, ws_connect

AGENT = "picows"


class CaseCount(WSListener):
    count = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.count = int(frame.get_payload_as_ascii_text())


async def case_count(url: str) -> int:
    transport, listener = await ws_connect(CaseCount, f"{url}/getCaseCount", **SETTINGS)
    await transport.wait_disconnected()
    return listener.count


async def run_case(url: str, case: int) -> bool:
    """Whether it went as a connection may go. What came of the case is for the testsuite to judge."""
    try:
        transport, _ = await ws_connect(Echo, f"{url}/runCase?case={case}&agent={AGENT}", **SETTINGS)
        await transport.wait_disconnected()
    except WSProtocolError:
        pass  # many a case sends what is against the protocol
    except Exception:
        print(f"The connection of the case number {case}:", file=sys.stderr)
        traceback.print_exc()
        return False
    return True


async def main(url: str) -> None:
    good = [await run_case(url, case) for case in range(1, await case_count(url) + 1)]
    transport, _ = await ws_connect(WSListener, f"{url}/updateReports?agent={AGENT}", **SETTINGS)
    await transport.wait_disconnected()
    if not all(good):
        sys.exit(f"{good.count(False)} cases ended with an exception")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    run(main(os.environ["AUTOBAHN_URL"]), parser.parse_args().loop)
