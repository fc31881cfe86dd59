"""The interactive client: on a terminal, and in a pipe."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from tests.cli.programs import ROOT, Open, Run, Start
from tests.cli.servers import serving

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
PROMPT = r">\S*\x1b\[\?25h"  # the cursor appears behind it


class Talker(WSListener):
    """Says what it was given, tells what it hears, and leaves when told to."""

    def __init__(self, request: WSUpgradeRequest, server: Server) -> None:
        self.request = request
        self.sayings, self.heard = server.sayings, server.heard

    def on_ws_connected(self, transport: WSTransport) -> None:
        for saying in self.sayings:
            transport.send(WSMsgType.TEXT if isinstance(saying, str) else WSMsgType.BINARY, saying)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            text = frame.get_payload_as_utf8_text()
            self.heard.append(text)
            if text.startswith("leave"):
                transport.send_close(int(text.split()[1]), "as you said")
            elif text == "vanish":
                transport.disconnect(graceful=False)
            elif text.startswith("header "):
                transport.send(WSMsgType.TEXT, str(self.request.headers.getall(text[7:], [])))
        elif frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.TEXT, f"{frame.payload_size} bytes")


class Server:
    def __init__(self) -> None:
        self.sayings: list[str | bytes] = []
        self.heard: list[str] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(lambda request: Talker(request, server), subprotocols=["b", "a"]) as server.url:
        yield server


# In a pipe


def test_lines_go_out_and_answers_come_back(run: Run, echo: str) -> None:
    ended = run("connect", echo, input="one\ntwö\n\nlast")
    assert ended.stdout == "one\ntwö\n\nlast\n"
    assert ended.returncode == 0
    assert ended.stderr.splitlines()[-1] == "Closed, the server answered 1000"


def test_a_long_input_arrives_whole(run: Run, echo: str) -> None:
    text = "".join(f"{number} {'x' * 1000}\n" for number in range(3000))
    assert run("connect", echo, input=text).stdout == text


def test_it_leaves_after_a_count_of_messages(run: Run, server: Server) -> None:
    server.sayings = ["one", "two", "three"]
    assert run("connect", server.url, "-n", 2).stdout == "one\ntwo\n"


def test_messages_are_sent_first(run: Run, echo: str) -> None:
    assert run("connect", echo, "-x", "a", "-x", "b", input="c\n").stdout == "a\nb\nc\n"


def test_json_is_laid_out(run: Run, server: Server) -> None:
    server.sayings = ['{"a":[1,"ä"]}', "no json"]
    printed = run("connect", server.url, "--json", "-n", 2).stdout
    assert printed == json.dumps({"a": [1, "ä"]}, indent=2, ensure_ascii=False) + "\nno json\n"


def test_bytes_are_shown_as_digits(run: Run, server: Server) -> None:
    server.sayings = [b"\x00\xffz"]
    assert run("connect", server.url, "-n", 1).stdout == "00 ff 7a\n"


@pytest.mark.parametrize(
    ("said", "exit_code", "told"),
    [
        ("leave 1000", 0, "The server closed: 1000 'as you said'"),
        ("leave 1001", 0, "The server closed: 1001 'as you said'"),
        ("leave 1011", 1, "The server closed: 1011 'as you said'"),
        ("leave 4001", 1, "The server closed: 4001 'as you said'"),
        ("vanish", 1, "The connection was lost"),
    ],
)
def test_the_exit_code_tells_how_the_server_left(
    run: Run, server: Server, said: str, exit_code: int, told: str
) -> None:
    ended = run("connect", server.url, "--listen", "-x", said)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (exit_code, told)


def test_a_pipe_gets_no_escapes_and_no_colours(run: Run, server: Server) -> None:
    server.sayings = ["\x1b[31mred\x07"]
    ended = run("connect", server.url, "-n", 1)
    assert ended.stdout == "\x1b[31mred\x07\n"
    assert "\x1b" not in ended.stderr


def test_headers_origin_and_subprotocol_are_sent(run: Run, server: Server) -> None:
    ended = run(
        "connect", server.url, "-H", "X-Token: t:1", "--origin", "http://o", "-S", "a", "-S", "c", "-x", "header X-Token",
        "-x", "header Origin", "-x", "header Sec-WebSocket-Protocol", "-n", 3
    )  # fmt: skip
    assert ended.stdout == "['t:1']\n['http://o']\n['a, c']\n"
    assert ended.stderr.splitlines()[0].endswith(", subprotocol a")


def test_compression_is_agreed_on(run: Run, start: Start) -> None:
    url = start("echo", "--port", 0, "--compress").url()
    ended = run("connect", url, "--compress", input="x" * 10000)
    assert ended.stderr.splitlines()[0].endswith(", compressed")
    assert ended.stdout == "x" * 10000 + "\n"


@pytest.mark.parametrize(("answers", "exit_code"), [(True, 0), (False, 1)])
def test_a_server_that_leaves_pings_unanswered_is_given_up(run: Run, answers: bool, exit_code: int) -> None:
    class Waiter(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            self.timer = asyncio.get_running_loop().call_later(0.5, transport.send_close, 1000)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            self.timer.cancel()

    with serving(lambda request: Waiter(), enable_auto_pong=answers) as url:
        ended = run("connect", url, "--listen", "--ping-interval", 0.1)
    told = ["The connection was lost", "The server closed: 1000"][answers]
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (exit_code, told)


def test_ctrl_c_ends_it_with_130(start: Start, server: Server) -> None:
    program = start("connect", server.url, "--listen")
    program.wait_for("Connected to")
    program.signal(signal.SIGINT)
    code, printed = program.end()
    assert code == 130, printed
    assert "Traceback" not in printed


# On a terminal


def test_a_line_is_typed_and_the_answer_shown(open_terminal: Open, echo: str) -> None:
    terminal = open_terminal("connect", echo)
    terminal.wait_for("Connected to ")
    terminal.wait_for(PROMPT)
    terminal.type("hello\r")
    terminal.wait_for("\x1b\\[36m< hello\x1b\\[0m")
    # A terminal takes it for its own in the moment in which something is printed.
    terminal.type_until(CTRL_D, "Closed, the server answered 1000")
    assert terminal.end()[0] == 0


def test_a_line_comes_back_from_the_history(open_terminal: Open, echo: str, tmp_path: Path) -> None:
    first = open_terminal("connect", echo)
    first.wait_for(PROMPT)
    first.type("remember me\r")
    first.wait_for("< remember me")
    first.type(CTRL_C)
    assert first.end()[0] == 130
    history = tmp_path / ".local" / "state" / "picows" / "history"
    assert "+remember me" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    second = open_terminal("connect", echo)
    second.wait_for(PROMPT)
    second.type_until(UP, "remember me")
    second.type("\r")
    second.wait_for("< remember me")


def test_commands_are_obeyed(open_terminal: Open, server: Server) -> None:
    terminal = open_terminal("connect", server.url)
    terminal.wait_for(PROMPT)
    terminal.type("/binary 00ff 10\r")
    terminal.wait_for("< 3 bytes")
    terminal.type("/binary xyz\r")
    terminal.wait_for("/binary: non-hexadecimal")
    terminal.type("/ping there\r")
    terminal.wait_for("pong 'there'")
    terminal.type("/nothing\r")
    terminal.wait_for("there is no /nothing")
    terminal.type("/help\r")
    terminal.wait_for("send bytes")
    terminal.type("/close 4000 bye\r")
    terminal.wait_for("Closed, the server answered 4000 'bye'")
    assert terminal.end()[0] == 0


def test_a_code_that_cannot_be_sent_closes_nothing(open_terminal: Open, server: Server) -> None:
    terminal = open_terminal("connect", server.url)
    terminal.wait_for(PROMPT)
    terminal.type("/close 7\r")
    terminal.wait_for("/close: .*7")
    terminal.type("/binary 00\r")
    terminal.wait_for("< 1 bytes")


def test_an_empty_line_is_not_sent(open_terminal: Open, server: Server) -> None:
    terminal = open_terminal("connect", server.url)
    terminal.wait_for(PROMPT)
    terminal.type("\r")
    terminal.wait_for(PROMPT)
    terminal.type("header Host\r")
    terminal.wait_for(r"< \['127.0.0.1:\d+'\]")
    terminal.type("/close\r")
    terminal.wait_for("Closed, the server answered 1000")
    assert terminal.end()[0] == 0
    assert server.heard == ["header Host"]


def test_two_slashes_send_one(open_terminal: Open, echo: str) -> None:
    terminal = open_terminal("connect", echo)
    terminal.wait_for(PROMPT)
    terminal.type("//help\r")
    terminal.wait_for("< /help")


def test_a_terminal_does_not_obey_the_server(open_terminal: Open, server: Server) -> None:
    server.sayings = ["\x1b]0;owned\x07\x9b2J\u202e"]
    terminal = open_terminal("connect", server.url)
    terminal.wait_for(r"< \\x1b\]0;owned\\x07\\x9b2J\\u202e")


def test_no_colours_where_they_are_not_wanted(open_terminal: Open, echo: str) -> None:
    terminal = open_terminal("connect", echo, "-x", "plain", "--listen", NO_COLOR="1")
    terminal.wait_for("\n< plain\r\n")


@pytest.mark.parametrize("leave", ["/close\r", CTRL_D])
def test_without_prompt_toolkit_lines_are_read_as_they_are(open_terminal: Open, echo: str, tmp_path: Path, leave: str) -> None:
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError")
    terminal = open_terminal("connect", echo, PYTHONPATH=f"{tmp_path}:{ROOT}")
    terminal.wait_for(r"pip install 'picows\[cli\]'")
    terminal.type("hello\r")
    terminal.wait_for("< hello")
    terminal.type(leave)
    terminal.wait_for("Closed, the server answered 1000")
    assert terminal.end()[0] == 0


def test_a_history_that_cannot_be_kept_is_done_without(open_terminal: Open, echo: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    terminal = open_terminal("connect", echo, XDG_STATE_HOME=str(state))
    terminal.wait_for(PROMPT)
    terminal.type("hello\r")
    terminal.wait_for("< hello")
    terminal.type_until(UP, "hello")
