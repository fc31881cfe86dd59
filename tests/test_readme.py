"""README.rst: its programs, run as a reader would run them, and what package indexes show of it."""

from __future__ import annotations

import asyncio
import contextlib
import email
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import docutils.core
import docutils.nodes
import pytest

from picows import WSInvalidStatusError
from picows.websockets import InvalidStatus, Request, Response, ServerConnection, connect, serve
from tests.ports import free_port

CHECKOUT = Path(__file__).parents[1]


def code_blocks(text: str) -> list[str]:
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def test_clients_in_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    programs = code_blocks((CHECKOUT / "README.rst").read_text(encoding="utf-8"))[4:6]
    paths = []

    def refuse_the_second(connection: ServerConnection, request: Request) -> Response | None:
        paths.append(request.path)
        return connection.respond(403, "enough") if len(paths) % 2 == 0 else None

    async def greet(websocket: ServerConnection) -> None:
        await websocket.send("hello")

    async def talk() -> None:
        async with serve(greet, "127.0.0.1", 0, process_request=refuse_the_second) as server:
            port = server.sockets[0].getsockname()[1]
            for program, error in zip(programs, (InvalidStatus, WSInvalidStatusError)):
                found: dict[str, Any] = {}
                exec(program.replace("9001", str(port)), found)
                with pytest.raises(error):  # it has come again, and is refused for good
                    await found["main"]()

    asyncio.run(talk())
    assert paths == ["/"] * 4
    assert capsys.readouterr().out == "hello\n"


def test_a_server_in_five_lines(tmp_path: Path) -> None:
    server = code_blocks((CHECKOUT / "README.rst").read_text(encoding="utf-8"))[6]
    port = free_port()
    program = f"import sys; sys.path.append({str(CHECKOUT)!r})\n" + server.replace("9001", str(port))
    (tmp_path / "server.py").write_text(program)

    async def talk() -> None:
        assert (await health(port)).endswith(b"alive")
        async with connect(f"ws://127.0.0.1:{port}/") as websocket:
            await websocket.send("21")
            assert await websocket.recv() == "42"

    with subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, stdout=subprocess.PIPE) as serving:
        try:
            asyncio.run(talk())
        finally:
            serving.terminate()


async def health(port: int) -> bytes:
    """The answer to a health check, once there is a server."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        await asyncio.sleep(0.01)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("way", ["coroutines", "callbacks"])
def test_the_quick_starts_talk_to_each_other(tmp_path: Path, way: str) -> None:
    blocks = code_blocks((CHECKOUT / "README.rst").read_text(encoding="utf-8"))
    server, client = blocks[:2] if way == "coroutines" else blocks[2:4]
    port = str(free_port())
    for name, code in (("echo_client.py", client), ("echo_server.py", server)):
        assert "9001" in code
        # The checkout is where the package is, when it is not installed.
        (tmp_path / name).write_text(f"import sys; sys.path.append({str(CHECKOUT)!r})\n" + code.replace("9001", port))

    with subprocess.Popen(
        [sys.executable, "-u", "echo_server.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline() == f"Listening on ('127.0.0.1', {port})\n"
            replied = subprocess.run(
                [sys.executable, "echo_client.py"], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert (replied.stdout, replied.stderr) == ("The server replied: Hello world\n", "")
            if way == "callbacks":
                assert serving.stdout.readline() == "A client asks for /\n"
        finally:
            serving.kill()


def long_description(folder: Path) -> str:
    """What package indexes show: it stands in the metadata, which is built in a copy here."""
    for name in ("LICENSE", "README.rst", "pyproject.toml", "setup.py"):
        shutil.copy(CHECKOUT / name, folder)
    (folder / "built").mkdir()
    (folder / "picows").symlink_to(CHECKOUT / "picows")
    build = "from setuptools.build_meta import prepare_metadata_for_build_wheel; prepare_metadata_for_build_wheel('built')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    (path,) = folder.glob("built/*.dist-info/METADATA")
    metadata = email.message_from_string(path.read_text(encoding="utf-8"))
    assert metadata["Description-Content-Type"] == "text/x-rst"
    return str(metadata.get_payload())


def test_all_links_and_pictures_hold_on_a_package_index(tmp_path: Path) -> None:
    """It renders nothing that reads files, and knows no folder of ours."""
    settings = {"file_insertion_enabled": False, "raw_enabled": False, "syntax_highlight": "none", "halt_level": 1}
    page = docutils.core.publish_doctree(long_description(tmp_path), settings_overrides=settings)
    targets = [node[name] for node in page.findall() for name in ("uri", "refuri") if name in getattr(node, "attributes", ())]
    assert [target for target in targets if not target.startswith("https://")] == []
    # All of it is there but the picture.
    whole = docutils.core.publish_doctree((CHECKOUT / "README.rst").read_text(encoding="utf-8"), settings_overrides=settings)
    (picture,) = whole.findall(docutils.nodes.image)
    assert (CHECKOUT / picture["uri"]).is_file()
    picture.parent.remove(picture)
    assert page.astext() == whole.astext()
