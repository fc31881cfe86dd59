"""Runs the compiled listener against an echo server and prints what it received."""

import asyncio
import sys

from user_listener import UserListener, strategies

import picows


class Echo(picows.WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == picows.WSMsgType.CLOSE:
            print(int(frame.get_close_code()), frame.get_close_reason())
            transport.disconnect()
        elif frame.msg_type != picows.WSMsgType.PING:
            transport.send(frame.msg_type, frame, frame.fin)


async def main():
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, listener = await picows.ws_connect(lambda: UserListener(b"greeting"), f"ws://127.0.0.1:{port}/")
    await transport.wait_disconnected()
    print(listener.received, strategies(), listener.transport is transport)
    server.close()
    await server.wait_closed()


asyncio.run(main())
if hasattr(sys, "_is_gil_enabled"):
    assert sys._is_gil_enabled() == ("t" not in sys.abiflags), "importing picows turned the GIL on"
