"""What the echo server and the echo client share: the listener, the settings and the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from picows import WSDeflate, WSFrame, WSListener, WSMsgType, WSTransport

MESSAGES = (WSMsgType.TEXT, WSMsgType.BINARY)
LARGEST = 16 * 1024 * 1024  # bytes; the testsuite sends a message of this size, in one frame and in many

SETTINGS: dict[str, Any] = {
    "assemble_messages": True,
    "compression": WSDeflate(),
    "enable_auto_close": True,
    "max_frame_size": LARGEST,
    "max_message_size": LARGEST,
}
LOOPS = ("asyncio", "uvloop")


class Echo(WSListener):
    """Sends back each message. Pings and CLOSE are answered by picows."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in MESSAGES:
            transport.send(frame.msg_type, frame)


def run(program: Coroutine[Any, Any, None], loop: str) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(program)
