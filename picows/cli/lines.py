"""Lines to send: from a prompt with history, or from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from .terminal import Screen

PROMPT = "> "


async def lines_of_stdin() -> AsyncGenerator[str, None]:
    """The lines of the standard input, without their ends.

    A thread reads them: only so files, pipes and terminals can all be waited for. It is no further
    ahead than one line, so that a large file is not read at once.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue(1)

    def read() -> None:
        # The loop may be gone by now, and nobody waits any more.
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            for line in _raw_lines(sys.stdin.fileno()):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                asyncio.run_coroutine_threadsafe(queue.put(text), loop).result()
            asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()

    threading.Thread(target=read, daemon=True).start()
    while True:
        line = await queue.get()
        if line is None:
            return
        yield line


def _raw_lines(fd: int) -> Iterator[bytes]:
    # Not by sys.stdin: a thread that waits in it when the program ends is a fatal error.
    rest = b""
    while data := os.read(fd, 65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


async def typed_lines(screen: Screen) -> AsyncGenerator[str, None]:
    """What is typed at a prompt, until Ctrl+D. What is printed meanwhile appears above it.

    By prompt_toolkit, where it is installed; else line by line, as the terminal itself has it.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.patch_stdout import patch_stdout
    except ImportError:
        screen.note("History and editing of lines come with: pip install 'picows[cli]'")
        async for line in lines_of_stdin():
            yield line
        return
    screen.note("/help tells the commands, Ctrl+D closes")
    session: PromptSession[str] = PromptSession(history=_history(FileHistory))
    # Raw between two lines as well, or what is typed there would be the terminal's own to handle.
    with patch_stdout(raw=True), session.input.raw_mode():
        while True:
            try:
                line = await session.prompt_async(PROMPT, handle_sigint=False)
            except EOFError:
                return
            except KeyboardInterrupt:
                # As it is without a prompt: the signal ends all of this.
                signal.raise_signal(signal.SIGINT)
                await asyncio.get_running_loop().create_future()
            if line:
                yield line


def _history(file_history: Any) -> Any:
    """Kept in the user's folder of state; or only for this time, where it cannot be written."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "picows"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "history"
        path.touch(mode=0o600)
    except OSError:
        return None
    return file_history(str(path))
