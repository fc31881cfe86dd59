"""Wrong arguments raise before anything is opened, and say which argument it was."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import socket
import ssl
import types
from pathlib import Path

import pytest

import picows
import picows.proxy
from picows import WSInvalidURL, WSListener, ws_connect, ws_create_server

URL = "ws://localhost:9/"
PACKAGE = Path(picows.__file__).parent

COMMON = [
    ("disconnect_on_exception", "yes", TypeError),
    ("websocket_handshake_timeout", 0, ValueError),
    ("websocket_handshake_timeout", -1.5, ValueError),
    ("websocket_handshake_timeout", float("nan"), ValueError),
    ("websocket_handshake_timeout", float("inf"), ValueError),
    ("websocket_handshake_timeout", "5", TypeError),
    ("websocket_handshake_timeout", True, TypeError),
    ("logger_name", 5, TypeError),
    ("logger_name", b"name", TypeError),
    ("enable_auto_ping", 2, TypeError),
    ("enable_auto_ping", 1.0, TypeError),
    ("auto_ping_idle_timeout", 0, ValueError),
    ("auto_ping_idle_timeout", None, TypeError),
    ("auto_ping_reply_timeout", -1, ValueError),
    ("auto_ping_reply_timeout", "1", TypeError),
    ("auto_ping_strategy", 0, ValueError),
    ("auto_ping_strategy", 3, ValueError),
    ("auto_ping_strategy", "PING_WHEN_IDLE", TypeError),
    ("enable_auto_pong", None, TypeError),
    ("max_frame_size", 0, ValueError),
    ("max_frame_size", -1, ValueError),
    ("max_frame_size", 1 << 64, ValueError),
    ("max_frame_size", 1e6, TypeError),
    ("max_frame_size", "1", TypeError),
    ("read_buffer_init_size", 0, ValueError),
    ("read_buffer_init_size", 1 << 63, ValueError),
    ("read_buffer_init_size", "16384", TypeError),
    ("use_aiofastnet", 1, TypeError),
    ("coalesce_writes", 2, TypeError),
    ("enable_auto_close", None, TypeError),
    ("max_write_buffer_size", 0, ValueError),
    ("max_write_buffer_size", "1", ValueError),
    ("max_write_buffer_size", 1.5, TypeError),
    ("slow_peer", 4, ValueError),
    ("slow_peer", "RAISE", TypeError),
    ("receive_timeout", 0, ValueError),
    ("receive_timeout", "1", TypeError),
    ("assemble_messages", -1, TypeError),
    ("max_message_size", 0, ValueError),
    ("max_message_size", 1e6, TypeError),
    ("compression", True, TypeError),
    ("subprotocols", "v1", TypeError),
    ("subprotocols", b"v1", TypeError),
    ("subprotocols", {"v1"}, TypeError),
    ("subprotocols", ["v1", b"v2"], TypeError),
    ("subprotocols", ["v1, v2"], ValueError),
    ("subprotocols", [""], ValueError),
    ("subprotocols", ["v1", "v2", "v1"], ValueError),
]

CLIENT = [
    ("ssl_context", True, TypeError),
    ("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ValueError),
    ("extra_headers", 5, TypeError),
    ("extra_headers", {"X-Name": "a\r\nInjected: b"}, ValueError),
    ("extra_headers", {"X Name": "a"}, ValueError),
    ("extra_headers", [("X-Name", 5)], TypeError),
    ("max_redirects", -1, ValueError),
    ("max_redirects", 1.0, TypeError),
    ("proxy", 5, TypeError),
    ("proxy_ssl_context", "context", TypeError),
    ("proxy_ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ValueError),
    ("server_hostname", b"localhost", TypeError),
    ("host", "localhost", TypeError),
    ("port", 80, TypeError),
    ("sock", None, TypeError),
    ("ssl", None, TypeError),
]

SERVER = [
    ("host", 5, TypeError),
    ("host", b"localhost", TypeError),
    ("host", ["localhost", 5], TypeError),
    ("host", [], ValueError),
    ("origins", "https://example.com", TypeError),
    ("origins", ["https://example.com", b"https://example.com"], TypeError),
    ("origins", [re.compile(b"https://.*")], TypeError),
    ("origins", ["https://example.com/"], ValueError),
    ("origins", ["https://Example.com"], ValueError),
    ("origins", ["example.com"], ValueError),
    ("origins", ["*"], ValueError),
    ("origins", ["https://*.example.com"], ValueError),
    ("port", "65536", ValueError),
    ("port", "-1", ValueError),
    ("port", "no such service", ValueError),
    ("port", 80.0, TypeError),
    ("port", True, TypeError),
    ("port", -1, ValueError),
    ("port", 65536, ValueError),
    ("ssl", True, TypeError),
    ("ssl", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ValueError),
    ("sock", 3, TypeError),
]


def identify(value: object) -> str:
    if isinstance(value, ssl.SSLContext):
        return value.protocol.name
    return value.__name__ if isinstance(value, type) else repr(value)[:40]


async def connect(url: object = URL, factory: object = WSListener, **arguments: object) -> None:
    """Connect, where nobody can be reached: a socket_factory sees any attempt."""

    def attempt(endpoint: object) -> None:
        pytest.fail("the connection was attempted")

    await ws_connect(factory, url, **{"socket_factory": attempt, **arguments})


@pytest.mark.parametrize(("name", "value", "error"), COMMON + CLIENT, ids=identify)
def test_client_argument(name: str, value: object, error: type) -> None:
    with pytest.raises(error, match="header|X.Name" if name == "extra_headers" else name):
        asyncio.run(connect(**{name: value}))


@pytest.mark.parametrize(("name", "value", "error"), COMMON + SERVER, ids=identify)
def test_server_argument(name: str, value: object, error: type) -> None:
    async def serve() -> None:
        await ws_create_server(lambda request: None, **{"host": "localhost", name: value})

    with pytest.raises(error, match=name):
        asyncio.run(serve())


def test_client_socket_factory_must_be_callable() -> None:
    with pytest.raises(TypeError, match="socket_factory"):
        asyncio.run(connect(socket_factory="localhost"))


@pytest.mark.parametrize(
    "url",
    ["http://localhost/", "localhost", "ws://", "ws://localhost:0/", "ws://a b/", "ws://a/#here"],
)
def test_client_url(url: str) -> None:
    with pytest.raises(WSInvalidURL):
        asyncio.run(connect(url))


@pytest.mark.parametrize("url", [None, b"ws://localhost/", 5])
def test_client_url_must_be_text(url: object) -> None:
    with pytest.raises(TypeError, match="url"):
        asyncio.run(connect(url))


@pytest.mark.parametrize(
    "proxy", ["", "localhost:3128", "ftp://localhost", "http://", "socks5://localhost/path"]
)
def test_client_proxy_url(proxy: str) -> None:
    with pytest.raises(WSInvalidURL):
        asyncio.run(connect(proxy=proxy))


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("ws://[::1]/", "socks4://localhost"),
        (URL, "socks4://%C3%A9@localhost"),
        (URL, "socks4://a%00b@localhost"),
        (URL, "socks5://%C3%A9:password@localhost"),
        (URL, "socks5://user:%C3%A9@localhost"),
        (URL, "socks5://user:" + 256 * "p" + "@localhost"),
        (URL, "http://us%3Aer:password@localhost"),
    ],
)
def test_client_proxy_that_cannot_carry_it(url: str, proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy: ") as error:
        asyncio.run(connect(url, proxy=proxy))
    assert "password" not in str(error.value).replace("password must", "")


def no_arguments() -> WSListener:
    return WSListener()


def one_argument(request: object) -> WSListener:
    return WSListener()


def three_arguments(request: object, response: object, more: object) -> WSListener:
    return WSListener()


def keyword_needed(*, name: str) -> WSListener:
    return WSListener()


@pytest.mark.parametrize(
    "factory", [None, 5, WSListener(), one_argument, three_arguments, keyword_needed]
)
def test_client_factory(factory: object) -> None:
    with pytest.raises(TypeError, match="ws_listener_factory"):
        asyncio.run(connect(factory=factory))


@pytest.mark.parametrize("factory", [None, "factory", no_arguments, three_arguments])
def test_server_factory(factory: object) -> None:
    with pytest.raises(TypeError, match="ws_listener_factory"):
        asyncio.run(ws_create_server(factory, "localhost"))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=lambda family: family.name)
@pytest.mark.parametrize("address", [("localhost", None), (None, 0)])
def test_server_takes_a_socket_or_an_address(family: int, address: tuple) -> None:
    async def serve() -> None:
        with socket.socket(family) as sock:
            await ws_create_server(lambda request: None, *address, sock=sock)

    with pytest.raises(ValueError, match="host and port must be None when there is a sock"):
        asyncio.run(serve())


def test_unknown_arguments() -> None:
    async def serve() -> None:
        await ws_create_server(lambda request: None, "localhost", 0, colour="blue")

    with pytest.raises(TypeError, match="colour"):
        asyncio.run(connect(colour="blue", socket_factory=None))
    with pytest.raises(TypeError, match="colour"):
        asyncio.run(serve())


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(connect, use_aiofastnet=True),
        functools.partial(ws_create_server, lambda request: None, "localhost", use_aiofastnet=True),
    ],
)
def test_aiofastnet_is_demanded_but_not_installed(
    call: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picows.proxy, "aiofastnet", None)
    with pytest.raises(ImportError, match="aiofastnet"):
        asyncio.run(call())


CALLED = ("isEnabledFor", "log", "debug", "info", "warning", "error")


@pytest.mark.parametrize("missing", CALLED)
def test_a_logger_has_every_method_that_is_called(missing: str) -> None:
    logger = types.SimpleNamespace(**dict.fromkeys(CALLED, print))
    delattr(logger, missing)
    with pytest.raises(TypeError, match=rf"logger_name .*no method {missing}\(\)"):
        asyncio.run(connect(logger_name=logger))


def test_no_other_method_of_a_logger_is_called() -> None:
    sources = [*PACKAGE.glob("*.py"), *PACKAGE.glob("_core/*.pxi"), *PACKAGE.glob("*.pyx")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert set(re.findall(r"\blogger\.([a-zA-Z]\w*)\(", text)) == set(CALLED)


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(picows.PICOWS_DEBUG_LL)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(record.name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"picows.client", "picows.server"}),
        ({"logger_name": "orders"}, {"picows.orders"}),
        ({"logger_name": logging.getLogger("mine")}, {"mine"}),
        ({"logger_name": logging.LoggerAdapter(logging.getLogger("adapted"), {})}, {"adapted"}),
    ],
    ids=["default", "suffix", "logger", "adapter"],
)
def test_who_logs(arguments: dict, expected: set, caplog: pytest.LogCaptureFixture) -> None:
    async def connect_once() -> None:
        server = await ws_create_server(lambda request: WSListener(), "localhost", **arguments)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await ws_connect(WSListener, f"ws://localhost:{port}/", **arguments)
        transport.disconnect()
        await transport.wait_disconnected()
        server.close()

    recorder = Recorder()
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, expected)]
    for logger in loggers:
        caplog.set_level(picows.PICOWS_DEBUG_LL, logger.name if logger is not root else None)
    root.addHandler(recorder)
    try:
        asyncio.run(connect_once())
    finally:
        root.removeHandler(recorder)
    assert {name for name in recorder.names if not name.startswith("asyncio")} == expected


def test_the_last_port_is_one() -> None:
    async def listen() -> None:
        with contextlib.suppress(OSError):  # somebody has it
            server = await ws_create_server(lambda request: None, "127.0.0.1", 65535)
            assert server.sockets[0].getsockname()[1] == 65535
            server.close()
            await server.wait_closed()

    asyncio.run(listen())


@pytest.mark.parametrize("port", ["0", "http"])
def test_a_port_as_asyncio_takes_it(port: str) -> None:
    async def listen() -> None:
        try:
            server = await ws_create_server(lambda request: None, "127.0.0.1", port)
        except PermissionError:
            assert port == "http"  # which is for those who may
            return
        assert server.sockets[0].getsockname()[1] == 80 or port == "0"
        server.close()
        await server.wait_closed()

    asyncio.run(listen())


def test_a_switch_may_be_a_number() -> None:
    async def listen() -> None:
        server = await ws_create_server(
            lambda request: None, "127.0.0.1", 0, disconnect_on_exception=1, enable_auto_ping=0
        )
        server.close()
        await server.wait_closed()

    asyncio.run(listen())
