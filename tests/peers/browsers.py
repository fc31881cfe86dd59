"""Chromium and Firefox, where they are installed, told what to do by the protocols that they speak themselves.

Each serves its own over a WebSocket, and picows is the client: Chromium DevTools, Firefox WebDriver BiDi.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from picows.websockets import ClientConnection, connect
from tests.peers.programs import PATH, program

# No connections but those of the tests, no proxy, and no questions.
FIREFOX_SETTINGS = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.type": 0,
    "toolkit.telemetry.enabled": False,
}


class Session:
    """Pages of a browser. It takes one command at a time."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.numbers = itertools.count(1)

    async def command(self, method: str, parameters: dict[str, Any], **envelope: str) -> Any:
        number = next(self.numbers)
        await self.websocket.send(json.dumps({"id": number, "method": method, "params": parameters, **envelope}))
        answer: dict[str, Any] = {}
        while answer.get("id") != number:  # the others are events
            answer = json.loads(await self.websocket.recv())
        assert "result" in answer, answer
        return answer["result"]

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def open(self, url: str) -> str:
        """A new page, loaded."""
        raise NotImplementedError

    async def evaluate(self, page: str, code: str) -> Any:
        """What an expression of JavaScript is, or what its promise comes to."""
        raise NotImplementedError

    async def resize(self, page: str, width: int, height: int) -> None:
        """Show the page on a screen of that many pixels."""
        raise NotImplementedError

    async def close(self, page: str) -> None:
        raise NotImplementedError


class DevTools(Session):
    path = ""

    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__(websocket)
        self.attached: dict[str, str] = {}

    async def open(self, url: str) -> str:
        page: str = (await self.command("Target.createTarget", {"url": "about:blank"}))["targetId"]
        attached = await self.command("Target.attachToTarget", {"targetId": page, "flatten": True})
        self.attached[page] = attached["sessionId"]
        await self.command("Page.navigate", {"url": url}, sessionId=self.attached[page])
        # Asked again and again: a promise of the blank page would not come to an end in the next.
        while not await self.evaluate(page, "location.href != 'about:blank' && document.readyState == 'complete'"):
            await asyncio.sleep(0.02)
        return page

    async def evaluate(self, page: str, code: str) -> Any:
        options = {"expression": as_json(code), "awaitPromise": True, "returnByValue": True}
        evaluated = await self.command("Runtime.evaluate", options, sessionId=self.attached[page])
        assert "exceptionDetails" not in evaluated, evaluated
        return json.loads(evaluated["result"]["value"])

    async def resize(self, page: str, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.command("Emulation.setDeviceMetricsOverride", metrics, sessionId=self.attached[page])

    async def close(self, page: str) -> None:
        await self.command("Target.closeTarget", {"targetId": page})


class BiDi(Session):
    path = "/session"

    async def begin(self) -> None:
        await self.command("session.new", {"capabilities": {"alwaysMatch": {"acceptInsecureCerts": True}}})

    async def end(self) -> None:
        await self.command("session.end", {})

    async def open(self, url: str) -> str:
        page: str = (await self.command("browsingContext.create", {"type": "tab"}))["context"]
        await self.command("browsingContext.navigate", {"context": page, "url": url, "wait": "complete"})
        return page

    async def evaluate(self, page: str, code: str) -> Any:
        options = {"expression": as_json(code), "awaitPromise": True, "target": {"context": page}}
        evaluated = await self.command("script.evaluate", options)
        assert evaluated["type"] == "success", evaluated
        return json.loads(evaluated["result"]["value"])

    async def resize(self, page: str, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        await self.command("browsingContext.setViewport", {"context": page, "viewport": viewport})

    async def close(self, page: str) -> None:
        await self.command("browsingContext.close", {"context": page})


def as_json(code: str) -> str:
    """Each protocol has a form of its own for objects; strings they have in common."""
    return f"(async () => JSON.stringify(await ({code})) ?? 'null')()"


class Browser:
    def __init__(self, protocol: type[DevTools | BiDi], address: str) -> None:
        self.protocol, self.address = protocol, address

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """One at a time."""
        async with connect(self.address + self.protocol.path, proxy=None, max_size=None) as websocket:
            session = self.protocol(websocket)
            await session.begin()
            try:
                yield session
            finally:
                await session.end()


@contextlib.contextmanager
def browser(protocol: type[DevTools | BiDi], folder: Path, *command: str) -> Iterator[Browser]:
    """A browser without a window, with a profile and a home of its own."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "HOME": str(folder)})
    with process:
        try:
            while (told := re.search(r"listening on (ws://\S+)\n", log.read_text(errors="replace"))) is None:
                assert process.poll() is None, log.read_text(errors="replace")
                time.sleep(0.02)
            yield Browser(protocol, told[1])
        finally:
            process.terminate()


def chromium(folder: Path) -> contextlib.AbstractContextManager[Browser]:
    options = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    return browser(DevTools, folder, program("chromium"), *options)


def firefox(folder: Path) -> contextlib.AbstractContextManager[Browser]:
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in FIREFOX_SETTINGS.items()]
    (folder / "user.js").write_text("".join(lines))
    path = shutil.which("firefox", path=PATH) or program("firefox-esr")
    return browser(BiDi, folder, path, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(folder))
