"""``picows connect``: an interactive client that works in a pipe, too."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from typing import Any

from .. import WSFrame, WSListener, WSMsgType, WSTransport
from .dialing import dial, peer_of
from .lines import lines_of_stdin, typed_lines
from .terminal import Screen, is_terminal

HELP = """Lines are sent as TEXT. Commands:
  /ping [TEXT]           send a PING and tell how long its PONG takes
  /binary HEX            send bytes, given as hexadecimal digits
  /close [CODE [TEXT]]   close the connection, by 1000 if not told otherwise
  /help                  this
A line that begins with // is sent with one slash. Ctrl+D closes as well."""

LEAVE_TIMEOUT = 1.0  # seconds, for the server to answer the CLOSE of a client that is in a hurry

# How an end is called that is no failure.
GOOD_CODES = (1000, 1001, 1005)


async def main(options: argparse.Namespace) -> int:
    screen = Screen()
    auto_ping: dict[str, Any] = {}
    if options.ping_interval:
        auto_ping = {
            "enable_auto_ping": True,
            "auto_ping_idle_timeout": options.ping_interval,
            "auto_ping_reply_timeout": options.ping_interval,
        }
    transport, session = await dial(Session(screen, options), options, **auto_ping)
    screen.note(f"Connected to {options.url} ({peer_of(transport)}){_agreed(transport)}")
    for message in options.send:
        transport.send(WSMsgType.TEXT, message)
    talking = asyncio.ensure_future(_talk(transport, session, options, screen))
    ended = asyncio.ensure_future(transport.wait_disconnected())
    try:
        await asyncio.wait({talking, ended}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done() and not ended.done():
            talking.result()
            await transport.close()
        await ended
    finally:
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
        if not ended.done():
            # By Ctrl+C, which a second one cuts short.
            await transport.close(1001, timeout=LEAVE_TIMEOUT)
        ended.cancel()
    return _tell_the_end(transport, screen)


def _agreed(transport: WSTransport) -> str:
    agreed = ""
    if transport.subprotocol is not None:
        agreed += f", subprotocol {transport.subprotocol}"
    if transport.compression is not None:
        agreed += ", compressed"
    return agreed


async def _talk(
    transport: WSTransport, session: Session, options: argparse.Namespace, screen: Screen
) -> None:
    """Send what is typed or piped in, until that ends."""
    if not options.listen:
        interactive = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        lines = typed_lines(screen) if interactive else lines_of_stdin()
        async for line in lines:
            if not interactive:
                transport.send(WSMsgType.TEXT, line)
            elif not _obey(line, transport, screen):
                await lines.aclose()  # the terminal is as it was before
                return
            await transport.drain()
    if options.listen or options.count is not None:
        await session.enough.wait()


def _obey(line: str, transport: WSTransport, screen: Screen) -> bool:
    """Do what one line asks for; whether there is more to be done."""
    command, _, rest = line.partition(" ")
    try:
        if line.startswith("//") or not line.startswith("/"):
            transport.send(WSMsgType.TEXT, line[1:] if line.startswith("//") else line)
        elif command == "/ping":
            transport.send_ping(rest.encode() or None)
        elif command == "/binary":
            transport.send(WSMsgType.BINARY, bytes.fromhex(rest))
        elif command == "/close":
            code, _, reason = rest.strip().partition(" ")
            transport.send_close(int(code or 1000), reason or None)
            return False
        elif command == "/help":
            screen.note(HELP)
        else:
            screen.error(f"there is no {command}; /help tells what there is, // sends a slash")
    except ValueError as error:
        screen.error(f"{command}: {error}")
    return True


class Session(WSListener):
    """Prints what comes."""

    def __init__(self, screen: Screen, options: argparse.Namespace) -> None:
        self._screen = screen
        self._json = options.json
        self._left = options.count
        self.enough: asyncio.Event = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._message(self._laid_out(frame.get_payload_as_utf8_text()))
        elif frame.msg_type == WSMsgType.BINARY:
            self._message(frame.get_payload_as_bytes().hex(" "))
        elif frame.msg_type == WSMsgType.PONG:
            self._screen.note("pong" + _quoted(frame.get_payload_as_bytes()))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.enough.set()

    def _message(self, text: str) -> None:
        if self._left == 0:
            return
        self._screen.received(text)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.enough.set()

    def _laid_out(self, text: str) -> str:
        if self._json:
            with contextlib.suppress(ValueError):
                return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        return text


def _quoted(payload: bytes) -> str:
    return f" {payload.decode('utf-8', 'backslashreplace')!r}" if payload else ""


def _tell_the_end(transport: WSTransport, screen: Screen) -> int:
    code, reason = transport.close_code, transport.close_reason
    told = f" {reason!r}" if reason else ""
    handshake = transport.close_handshake
    if code == 1006:
        screen.error("The connection was lost")
        return 1
    if handshake is not None and not handshake.recv_then_sent:
        screen.note(f"Closed, the server answered {code}{told}")
        return 0
    screen.note(f"The server closed: {code}{told}")
    return 0 if code in GOOD_CODES else 1
