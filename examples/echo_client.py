"""An echo client: sends one message, prints the reply and leaves.

$ python -m examples.echo_client --url ws://127.0.0.1:9001/
"""

from __future__ import annotations

import argparse
import asyncio

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class EchoClient(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, "Hello world")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            print(f"Echo reply: {frame.get_payload_as_utf8_text()}")
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


async def main(url: str) -> None:
    transport, _ = await ws_connect(EchoClient, url)
    # Raises what a callback of the listener raised, so that no error passes unseen.
    await transport.wait_disconnected()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/")
    asyncio.run(main(parser.parse_args().url))
