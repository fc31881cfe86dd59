"""Runs the compiled listener against a server of today's picows; prints what each of the two was told."""

import asyncio

from caller import Caller, constants

import picows
from picows import WSListener, WSMsgType, ws_connect, ws_create_server

for enum, members in constants().items():
    for name, value in members.items():
        assert getattr(picows, enum)[name] == value, name


class Server(WSListener):
    def on_ws_connected(self, transport):
        self.transport = transport
        self.frames = []

    def on_ws_frame(self, transport, frame):
        bits = "".join(str(int(bit)) for bit in (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3))
        payload = frame.get_payload_as_bytes() if frame.payload_size < 100 else frame.payload_size
        self.frames.append(f"{frame.msg_type.name} {bits} {payload}")
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.get_payload_as_bytes() == b"answer":
            with transport.cork():
                transport.send(WSMsgType.TEXT, "\u00fc", fin=False, rsv1=True)
                transport.send(WSMsgType.CONTINUATION, b"c", rsv3=True)
                transport.send(WSMsgType.BINARY, bytes(4), rsv2=True)


async def main():
    servers = []

    def factory(request):
        servers.append(Server())
        return servers[0]

    server = await ws_create_server(factory, "127.0.0.1", 0, enable_auto_pong=False)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport, listener = await ws_connect(Caller, url)
    assert transport is listener.transport
    while "2 b'\\x00\\x00\\x00\\x00'" not in listener.calls:
        if transport.is_disconnected:
            await transport.wait_disconnected()  # raises what a callback raised
        await asyncio.sleep(0)
    (seconds,) = await transport.measure_roundtrip_time(1)
    assert seconds > 0
    servers[0].transport.send_close(4000, "done")
    await transport.wait_disconnected()
    server.close()
    await server.wait_closed()
    print(*servers[0].frames, sep="\n")
    print(*listener.calls, sep="\n")


asyncio.run(asyncio.wait_for(main(), 60))
