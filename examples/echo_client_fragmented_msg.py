"""A message in several frames: how to send one, and how to put one together again.

Many peers never fragment their messages, and then a frame is a message. Find out what yours does
before you pay for more.

$ python -m examples.echo_client_fragmented_msg --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

MAX_MESSAGE_SIZE = 16 * 1024 * 1024  # max_frame_size bounds a frame, not the sum of many


def send_fragmented(
    transport: WSTransport, msg_type: WSMsgType, message: bytes, fragment_size: int
) -> None:
    """The first frame tells the type, the others are CONTINUATION; only the last one has `fin`."""
    view = memoryview(message)  # its slices are not copies
    for start in range(0, len(view) or 1, fragment_size):
        end = start + fragment_size
        transport.send(msg_type, view[start:end], fin=end >= len(view))
        msg_type = WSMsgType.CONTINUATION


class MessageListener(WSListener):
    """Calls `on_message` with whole messages."""

    def __init__(self) -> None:
        self._msg_type: WSMsgType | None = None  # of the message that is not complete yet
        self._fragments = bytearray()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # Control frames are never fragmented, and may stand between two fragments.
        if frame.msg_type in (WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE):
            return

        # picows hands over every frame as it is; their order is for us to check. A
        # WSProtocolError from a callback closes the connection with the code it carries.
        if (frame.msg_type == WSMsgType.CONTINUATION) != (self._msg_type is not None):
            raise WSProtocolError(
                WSCloseCode.PROTOCOL_ERROR,
                f"received {frame!s}, expected "
                + ("a new message" if self._msg_type is None else "a continuation"),
            )
        if self._msg_type is None:
            if frame.fin:
                # The usual case: the frame is the message, and not a byte is copied.
                self.on_message(transport, frame.msg_type, frame.get_payload_as_memoryview())
                return
            self._msg_type = frame.msg_type
        if len(self._fragments) + frame.payload_size > MAX_MESSAGE_SIZE:
            raise WSProtocolError(
                WSCloseCode.MESSAGE_TOO_BIG, f"a message has over {MAX_MESSAGE_SIZE} bytes"
            )
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            msg_type, message = self._msg_type, self._fragments
            self._msg_type, self._fragments = None, bytearray()
            self.on_message(transport, msg_type, message)

    def on_message(
        self,
        transport: WSTransport,
        msg_type: WSMsgType,
        payload: memoryview | bytearray,
    ) -> None:
        raise NotImplementedError


class EchoClient(MessageListener):
    MESSAGE = b"The quick brown fox jumps over the lazy dog"

    def on_ws_connected(self, transport: WSTransport) -> None:
        send_fragmented(transport, WSMsgType.TEXT, self.MESSAGE, fragment_size=16)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        print(f"{frame.msg_type.name}, fin={frame.fin}, {frame.payload_size} bytes")
        super().on_ws_frame(transport, frame)

    def on_message(
        self,
        transport: WSTransport,
        msg_type: WSMsgType,
        payload: memoryview | bytearray,
    ) -> None:
        # UTF-8 is checked here, since a fragment may end in the middle of a character.
        print(f"{msg_type.name} message: {str(payload, 'utf-8')}")
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()


async def main(url: str) -> None:
    transport, _ = await ws_connect(EchoClient, url)
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
