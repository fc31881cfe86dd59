"""``picows echo``: a server that sends every message back."""

from __future__ import annotations

import argparse

from .. import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from .serving import bind, serve, url_of


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame)


def accept(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def main(options: argparse.Namespace) -> int:
    with bind(options) as sock:
        print(f"Listening on {url_of(sock, options)}", flush=True)
        return await serve(accept, sock, options)
