"""The quick starts of README.rst, run as a reader would run them: copied to files, the server first."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def code_blocks(text: str) -> list[str]:
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("way", ["coroutines", "callbacks"])
def test_the_quick_starts_talk_to_each_other(tmp_path: Path, way: str) -> None:
    blocks = code_blocks((CHECKOUT / "README.rst").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    server, client = blocks[:2] if way == "coroutines" else blocks[2:]
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
