"""The listener of the live fuzzer: inside every callback it does what a listener may do, drawn from its seed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from live_actions import disconnect, send_close
from live_side import Side

from picows import WSFrame, WSListener, WSMsgType, WSTransport


class Anything(WSListener):
    """All callbacks of a side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        side.world.watch(self, side.index)

    def on_ws_connected(self, transport: WSTransport) -> None:
        side = self.side
        if side.connected:
            side.found("on_ws_connected was called twice")
        side.connected = True
        side.transport, side.loop = transport, asyncio.get_running_loop()
        side.world.live.append(side)
        side.world.watch(transport, side.index)
        limits = side.chance.choice([None, None, 0, 1, 1000, 30_000])
        if limits is not None:
            transport.underlying_transport.set_write_buffer_limits(limits)
        side.act()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        side = self.side
        if side.disconnected:
            side.found("on_ws_frame was called after on_ws_disconnected")
        side.take(frame)
        side.keep(frame)
        outer, side.frame = side.frame, frame
        try:
            if frame.msg_type == WSMsgType.CLOSE:
                side.stopped = side.close_seen = True
                if side.chance.random() < 0.5:
                    side.do(send_close)
                    side.do(disconnect)
            if side.chance.random() < side.send_rate:
                side.act()
        finally:
            side.frame = outer
            if side.chance.random() < 0.05:
                side.frames = [*side.frames[-2:], frame]

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        side = self.side
        if side.disconnected or not side.connected:
            side.found(f"on_ws_disconnected was called, connected: {side.connected}, disconnected: {side.disconnected}")
        side.disconnected = True
        with contextlib.suppress(ValueError):
            side.world.live.remove(side)
        side.act()

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        super().send_user_specific_ping(transport)
        self.side.act(1)

    def is_user_specific_pong(self, frame: WSFrame) -> Any:
        side = self.side
        side.world.judging += 1
        try:
            side.act(1)
        except BaseException:
            side.inbound_is_whole = False  # nobody will see this frame
            raise
        finally:
            side.world.judging -= 1
        return super().is_user_specific_pong(frame)

    def pause_writing(self) -> None:
        self.side.pauses += 1
        self.side.act()

    def resume_writing(self) -> None:
        self.side.act()


class Quiet(Anything):
    """One that leaves the callbacks about writing as they are."""

    pause_writing = WSListener.pause_writing  # type: ignore[assignment]
    resume_writing = WSListener.resume_writing  # type: ignore[assignment]
