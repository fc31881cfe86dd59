"""Every option is defined once: the signatures and docstrings of both functions are held to the definition."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import picows.api
from picows import WSListener, ws_adopt, ws_connect, ws_create_server
from picows.settings import OPTIONS, Option, Settings, Side

PACKAGE = Path(__file__).parents[1] / "picows"
FUNCTIONS: dict[Side, Callable[..., Any]] = {"client": ws_connect, "server": ws_create_server}
# What takes options, which of them, and what it leaves out: the transport of who was adopted is there already.
TAKING: list[tuple[Callable[..., Any], Side, set[str]]] = [
    (ws_connect, "client", set()),
    (ws_create_server, "server", set()),
    (ws_adopt, "server", {"use_aiofastnet"}),
]
CLIENT_ONLY = {
    "connect_timeout",
    "extra_headers",
    "max_redirects",
    "proxy",
    "proxy_ssl_context",
    "socket_factory",
    "ssl_context",
}
SERVER_ONLY = {"origins"}

over_sides = pytest.mark.parametrize("side", FUNCTIONS)
over_functions = pytest.mark.parametrize(("function", "side", "left_out"), TAKING, ids=lambda value: getattr(value, "__name__", ""))
over_options = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


def options_of(side: Side) -> list[Option]:
    return [option for option in OPTIONS if option.is_for(side)]


def paragraphs(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says about each parameter, without its line breaks."""
    parameters = inspect.getdoc(function).partition("\n\n:raises")[0].partition("\n:return:")[0]
    found = re.findall(r"^:param (\w+):\n((?:    .*\n?)+)", parameters, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


@over_functions
def test_signature(function: Callable[..., Any], side: Side, left_out: set[str]) -> None:
    parameters = inspect.signature(function).parameters.values()
    by_name = [parameter for parameter in parameters if parameter.kind == inspect.Parameter.KEYWORD_ONLY]
    in_signature = [(parameter.name, parameter.annotation, parameter.default) for parameter in by_name]
    types = Settings.__annotations__
    assert in_signature == [
        (option.name, types[option.name], option.defaults[side]) for option in options_of(side) if option.name not in left_out
    ]


def test_which_options_are_for_one_side_only() -> None:
    assert {option.name for option in OPTIONS if not option.is_for("server")} == CLIENT_ONLY
    assert {option.name for option in OPTIONS if not option.is_for("client")} == SERVER_ONLY


def test_every_attribute_is_an_option() -> None:
    assert list(Settings.__annotations__) == [option.name for option in OPTIONS]


def test_every_option_is_read() -> None:
    readers = [PACKAGE / "client.py", PACKAGE / "server.py", PACKAGE / "_core" / "options.pxi"]
    read = {name for path in readers for name in re.findall(r"\bsettings\.(?!py\b)(\w+)", path.read_text(encoding="utf-8"))}
    assert read - {"side"} == {"logger" if option.name == "logger_name" else option.name for option in OPTIONS}


@over_functions
def test_docstring(function: Callable[..., Any], side: Side, left_out: set[str]) -> None:
    documented = paragraphs(function)
    assert list(documented) == list(inspect.signature(function).parameters)
    for option in options_of(side):
        if option.name in left_out:
            continue
        assert documented[option.name] == " ".join(option.documentation.split())
        assert len(documented[option.name]) > 40


@over_sides
@over_options
def test_defaults_are_right(option: Option, side: Side) -> None:
    option.check(option.name, option.defaults[side])


@over_sides
@over_options
def test_what_it_refuses(option: Option, side: Side) -> None:
    """Nothing is an `object()`; other wrong values stand in tests/connection/test_arguments.py."""
    wrong = {option.name: object()}
    calls = {
        "client": lambda: ws_connect(WSListener, "ws://localhost:9/", **wrong),
        "server": lambda: ws_create_server(lambda request: None, "localhost", 0, **wrong),
    }
    with pytest.raises(TypeError, match=option.name):
        asyncio.run(calls[side]())


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("max_frame_size", 1),
        ("max_message_size", 1),
        ("max_redirects", 0),
        ("max_write_buffer_size", 1),
        ("read_buffer_init_size", 1),
    ],
)
def test_the_least_and_the_most_that_it_takes(name: str, least: int) -> None:
    """What lies beyond is refused, in tests/connection/test_arguments.py."""
    for value in (least, sys.maxsize):
        assert getattr(Settings("client", {name: value}), name) == value


def test_settings_left_out_have_their_defaults() -> None:
    settings = Settings("server", {"max_frame_size": 7, "colour": "blue"})
    values = {**{option.name: option.defaults["server"] for option in OPTIONS}, "max_frame_size": 7}
    assert {name: value for name, value in vars(settings).items() if name != "side"} == values


def test_python_without_docstrings() -> None:
    subprocess.run([sys.executable, "-OO", "-c", "from picows import ws_connect; exit(ws_connect.__doc__)"], check=True)


def test_the_functions_are_found_where_they_were() -> None:
    assert picows.api.ws_connect is ws_connect
    assert picows.api.ws_create_server is ws_create_server


def test_the_types_of_arguments_are_found_where_they_were() -> None:
    for name in ("WSHeadersLike", "WSListenerFactory", "WSLoggerLike", "WSServerListenerFactory", "WSSocketFactory"):
        assert name in picows.api.__all__
        assert get_args(getattr(picows.api, name))
