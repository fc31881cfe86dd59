"""The types without behaviour. They are those of `websockets` where it is installed: what holds for those has to hold for ours."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import picows.websockets as ws
from picows.websockets import _types, headers
from picows.websockets.datastructures import Headers, MultipleValuesError
from picows.websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    PayloadTooBig,
    ProtocolError,
    TooManyFragments,
    WebSocketException,
)
from picows.websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from picows.websockets.frames import Close, CloseCode, Frame, Opcode
from picows.websockets.http11 import Request, Response
from picows.websockets.protocol import Side, State
from picows.websockets.uri import WebSocketURI, parse_uri
from tests.websockets.servers import INSTALLED

WITHOUT = "PICOWS_TEST_WITHOUT_WEBSOCKETS"

OK, AWAY = Close(1000, ""), Close(1001, "bye")
NOT_FOUND = Response(404, "Not Found", Headers())


def test_the_types_are_those_of_websockets_where_it_is_installed() -> None:
    for module, names in _types.SHARED.items():
        ours = importlib.import_module(f"picows.websockets.{module}")
        home = f"websockets.{module}" if INSTALLED else f"picows.websockets.{module}"
        assert {getattr(ours, name).__module__ for name in names} == {home}


def test_a_type_that_the_table_of_shared_ones_lacks_is_noticed() -> None:
    class Stranger:
        __module__ = "picows.websockets.frames"

    with pytest.raises(LookupError, match="Stranger does not stand in the table"):
        _types.shared(Stranger)


def test_the_same_tests_pass_without_the_package() -> None:
    if not INSTALLED:
        return
    tests = [f"tests/websockets/{name}" for name in ("test_types.py", "test_drop_in.py", "test_server.py::test_echo")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not needs_websockets", *tests]
    done = subprocess.run(command, env={**os.environ, WITHOUT: "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_found() -> None:
    for name in ws.__all__:
        value = getattr(ws, name)
        assert name == "__version__" or value is getattr(importlib.import_module(f"picows.websockets.{ws._MODULES[name]}"), name)
    assert set(ws.__all__) == {*ws._MODULES, "__version__"}
    assert set(ws.__all__) <= set(dir(ws))
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        ws.conect  # noqa: B018


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, picows; assert not any(name.startswith('picows.websockets') for name in sys.modules)\n"
        "import picows.websockets; print(*sorted(name for name in sys.modules if 'websockets' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["picows.websockets", "picows.websockets._place", "picows.websockets.version"]


@pytest.mark.parametrize("name", ["sync", "sync.client", "trio", "legacy", "legacy.server", "client", "server", "auth"])
def test_what_is_not_in_it_says_so(name: str) -> None:
    with pytest.raises(ImportError, match=rf"picows\.websockets is the asyncio API .* has no {name.split('.')[0]}, which is of"):
        importlib.import_module(f"picows.websockets.{name}")


@pytest.mark.parametrize("home", ["picows.websockets", "picows.websockets.protocol"])
def test_neither_are_the_sans_io_objects(home: str) -> None:
    with pytest.raises(ImportError, match="has no Protocol, which is of the Sans-I/O API"):
        exec(f"from {home} import Protocol")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionClosed(None, None), "no close frame received or sent"),
        (ConnectionClosedError(None, AWAY), "sent 1001 (going away) bye; no close frame received"),
        (ConnectionClosedError(OK, None), "received 1000 (OK); no close frame sent"),
        (ConnectionClosedOK(OK, AWAY, True), "received 1000 (OK); then sent 1001 (going away) bye"),
        (ConnectionClosedOK(OK, AWAY, False), "sent 1001 (going away) bye; then received 1000 (OK)"),
        (InvalidURI("u", "m"), "u isn't a valid URI: m"),
        (InvalidProxy("u", "m"), "u isn't a valid proxy: m"),
        (InvalidStatus(NOT_FOUND), "server rejected WebSocket connection: HTTP 404"),
        (InvalidProxyStatus(NOT_FOUND), "proxy rejected connection: HTTP 404"),
        (InvalidHeader("A"), "missing A header"),
        (InvalidHeader("A", ""), "empty A header"),
        (InvalidHeader("A", "b"), "invalid A header: b"),
        (InvalidHeaderValue("A", "b"), "invalid A header: b"),
        (InvalidHeaderFormat("A", "expected token", "head", 3), "invalid A header: expected token at 3 in head"),
        (InvalidUpgrade("Upgrade"), "missing Upgrade header"),
        (InvalidOrigin(None), "missing Origin header"),
        (InvalidOrigin("x"), "invalid Origin header: x"),
        (InvalidMethod("POST"), "unsupported HTTP method: POST"),
        (InvalidProtocol("HTTP/1.0"), "unsupported HTTP version: HTTP/1.0"),
        (DuplicateParameter("A"), "duplicate parameter: A"),
        (InvalidParameterName("A"), "invalid parameter name: A"),
        (InvalidParameterValue("A", None), "missing value for parameter A"),
        (InvalidParameterValue("A", ""), "empty value for parameter A"),
        (InvalidParameterValue("A", "b"), "invalid value for parameter A: b"),
        (PayloadTooBig(10, 5), "frame with 10 bytes exceeds limit of 5 bytes"),
        (PayloadTooBig(None, 5), "frame exceeds limit of 5 bytes"),
        (PayloadTooBig(10, 5, 3), "frame with 10 bytes after reading 3 bytes exceeds limit of 8 bytes"),
        (TooManyFragments(5), "fragmented message exceeds limit of 5 frames"),
    ],
)
def test_errors_say_what_happened(error: WebSocketException, text: str) -> None:
    assert str(error) == text
    assert isinstance(error, WebSocketException)


def test_what_is_said_of_a_size_may_be_a_text() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the package has it for old programs only
        assert str(PayloadTooBig("so large")) == "so large"


def test_old_names_of_what_a_connection_ended_with_are_warned_of() -> None:
    for rcvd, code, reason in ((Close(1001, "bye"), 1001, "bye"), (None, 1006, "")):
        error = ConnectionClosedError(rcvd, None)
        with pytest.warns(DeprecationWarning, match="code"):
            assert error.code == code
        with pytest.warns(DeprecationWarning, match="reason"):
            assert error.reason == reason


def test_subprotocols_are_written_and_read() -> None:
    assert headers.build_subprotocol(["chat", "b"]) == "chat, b"
    assert headers.parse_subprotocol("chat, b") == ["chat", "b"]


def test_the_tree_of_errors() -> None:
    def bases(name: str) -> list[str]:
        return [base.__name__ for base in getattr(ws, name).__bases__]

    assert {name: bases(name) for name in sorted(_types.SHARED["exceptions"])} == {
        "ConcurrencyError": ["WebSocketException", "RuntimeError"],
        "ConnectionClosed": ["WebSocketException"],
        "ConnectionClosedError": ["ConnectionClosed"],
        "ConnectionClosedOK": ["ConnectionClosed"],
        "DuplicateParameter": ["NegotiationError"],
        "HeaderLineTooLong": ["SecurityError"],
        "InvalidHandshake": ["WebSocketException"],
        "InvalidHeader": ["InvalidHandshake"],
        "InvalidHeaderFormat": ["InvalidHeader"],
        "InvalidHeaderValue": ["InvalidHeader"],
        "InvalidMessage": ["InvalidHandshake"],
        "InvalidMethod": ["InvalidHandshake"],
        "InvalidOrigin": ["InvalidHeader"],
        "InvalidParameterName": ["NegotiationError"],
        "InvalidParameterValue": ["NegotiationError"],
        "InvalidProtocol": ["InvalidHandshake"],
        "InvalidProxy": ["WebSocketException"],
        "InvalidProxyMessage": ["ProxyError"],
        "InvalidProxyStatus": ["ProxyError"],
        "InvalidState": ["WebSocketException", "AssertionError"],
        "InvalidStatus": ["InvalidHandshake"],
        "InvalidURI": ["WebSocketException"],
        "InvalidUpgrade": ["InvalidHeader"],
        "NegotiationError": ["InvalidHandshake"],
        "PayloadTooBig": ["WebSocketException"],
        "ProtocolError": ["WebSocketException"],
        "ProxyError": ["InvalidHandshake"],
        "RequestLineTooLong": ["SecurityError"],
        "SecurityError": ["InvalidHandshake"],
        "StatusLineTooLong": ["SecurityError"],
        "TooManyFragments": ["WebSocketException"],
        "TooManyHeaders": ["SecurityError"],
        "WebSocketException": ["Exception"],
    }


def test_what_errors_hold() -> None:
    closed = ConnectionClosedOK(OK, AWAY, True)
    assert (closed.rcvd, closed.sent, closed.rcvd_then_sent) == (OK, AWAY, True)
    assert ConnectionClosed(None, None).rcvd_then_sent is None
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        assert closed.code == 1000
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        assert ConnectionClosed(None, None).code == 1006
    assert InvalidStatus(NOT_FOUND).response is NOT_FOUND
    header = InvalidHeaderFormat("A", "expected token", "head", 3)
    assert (header.name, header.value) == ("A", "expected token at 3 in head")
    big = PayloadTooBig(10, 5, 3)
    assert (big.size, big.max_size, big.current_size) == (10, 8, 3)
    assert isinstance(header, InvalidHandshake)


@pytest.mark.parametrize(
    "error",
    [ConnectionClosedOK(OK, AWAY, True), InvalidOrigin("x"), InvalidHeaderFormat("A", "b", "c", 3), PayloadTooBig(10, 5)],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_headers_look_like_a_mapping_whatever_the_case() -> None:
    fields = Headers([("Accept", "a"), ("accept", "b")], Host="x")
    assert fields["HOST"] == fields.get("host") == "x"
    assert list(fields) == ["accept", "host"]
    assert len(fields) == 2
    assert "hOST" in fields
    assert "z" not in fields
    assert 3 not in fields
    assert fields.get_all("ACCEPT") == ["a", "b"]
    assert fields.get_all("z") == []
    assert fields.get("z") is None
    with pytest.raises(KeyError):
        fields["z"]
    with pytest.raises(MultipleValuesError, match="'Accept'"):
        fields["Accept"]
    assert list(fields.raw_items()) == [("Accept", "a"), ("accept", "b"), ("Host", "x")]


def test_headers_are_added_and_deleted() -> None:
    fields = Headers({"A": "1"})
    fields["a"] = "2"
    fields.update({"B": "3"}, C="4")
    fields.update(Headers([("D", "5"), ("d", "6")]))
    assert repr(fields) == "Headers([('A', '1'), ('a', '2'), ('B', '3'), ('C', '4'), ('D', '5'), ('d', '6')])"
    copy = fields.copy()
    del fields["A"]
    assert list(fields.raw_items()) == [("B", "3"), ("C", "4"), ("D", "5"), ("d", "6")]
    assert copy.get_all("a") == ["1", "2"]
    assert copy != fields
    fields.clear()
    assert not fields
    assert fields == Headers()
    assert fields != {}


def test_headers_are_written() -> None:
    fields = Headers([("A", "1"), ("a", "\xe9")])
    assert str(fields) == "A: 1\r\na: \xe9\r\n\r\n"
    assert fields.serialize() == b"A: 1\r\na: \xe9\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "\0", "\u65e5"])
def test_a_header_that_would_break_the_head_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeaderValue):
        Headers({"A": value})
    fields = Headers()
    fields.set_insecure("A", value)
    assert fields["a"] == value


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (999, "999 (unknown) x"),
        (1000, "1000 (OK) x"),
        (CloseCode.GOING_AWAY, "1001 (going away) x"),
        (1002, "1002 (protocol error) x"),
        (1003, "1003 (unsupported data) x"),
        (1005, "1005 (no status received [internal]) x"),
        (1006, "1006 (abnormal closure [internal]) x"),
        (1007, "1007 (invalid frame payload data) x"),
        (1008, "1008 (policy violation) x"),
        (1009, "1009 (message too big) x"),
        (1010, "1010 (mandatory extension) x"),
        (1011, "1011 (internal error) x"),
        (1012, "1012 (service restart) x"),
        (1013, "1013 (try again later) x"),
        (1014, "1014 (bad gateway) x"),
        (1015, "1015 (TLS handshake failure [internal]) x"),
        (2999, "2999 (unknown) x"),
        (3000, "3000 (registered) x"),
        (4999, "4999 (private use) x"),
        (5000, "5000 (unknown) x"),
    ],
)
def test_a_close_says_what_its_code_means(code: int, text: str) -> None:
    assert str(Close(code, "x")) == text
    assert str(Close(code, "")) == text[:-2]


def test_a_close_and_its_payload() -> None:
    assert Close.parse(b"") == Close(CloseCode.NO_STATUS_RCVD, "")
    assert Close.parse(b"\x03\xe8ok") == Close(1000, "ok")
    assert Close(1000, "\xe9").serialize() == b"\x03\xe8\xc3\xa9"
    for payload in (b"\x03", b"\x00\x00", b"\x03\xec", b"\x03\xed", b"\x13\x88"):
        with pytest.raises(ProtocolError):
            Close.parse(payload)
    with pytest.raises(ProtocolError):
        Close(1005, "").serialize()


def test_enums() -> None:
    assert [(state.name, state.value) for state in State] == [("CONNECTING", 0), ("OPEN", 1), ("CLOSING", 2), ("CLOSED", 3)]
    assert [(side.name, side.value) for side in Side] == [("SERVER", 0), ("CLIENT", 1)]
    assert {code.name: code.value for code in Opcode} == {"CONT": 0, "TEXT": 1, "BINARY": 2, "CLOSE": 8, "PING": 9, "PONG": 10}
    assert [int(code) for code in CloseCode] == [*range(1000, 1004), *range(1005, 1016)]
    assert Frame(Opcode.TEXT, b"x") == Frame(opcode=Opcode.TEXT, data=b"x", fin=True, rsv1=False, rsv2=False, rsv3=False)


def test_requests_and_responses() -> None:
    request = Request("/x?y", Headers(A="1"))
    assert (request.path, request.headers) == ("/x?y", Headers(A="1"))
    assert request.serialize() == b"GET /x?y HTTP/1.1\r\nA: 1\r\n\r\n"
    response = Response(200, "OK", Headers(A="1"), b"x")
    assert (response.status_code, response.reason_phrase, response.body) == (200, "OK", b"x")
    assert response.serialize() == b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nx"
    assert response == Response(200, "OK", Headers(A="1"), b"x")


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("ws://localhost/", (False, "localhost", 80, "/", "")),
        ("WSS://Host", (True, "host", 443, "", "")),
        ("wss://h:1/p?q", (True, "h", 1, "/p", "q")),
        ("ws://u:p@h/", (False, "h", 80, "/", "", "u", "p")),
        ("ws://:p@h/", (False, "h", 80, "/", "", "", "p")),
        ("ws://u%41:@h/;x", (False, "h", 80, "/;x", "", "uA", "")),
        ("ws://[::1]:80/", (False, "::1", 80, "/", "")),
        ("ws://\xe9.com/\xe9%20?\xe9=\xe9", (False, "xn--9ca.com", 80, "/%C3%A9%20", "%C3%A9=%C3%A9")),
    ],
)
def test_a_uri_is_taken_apart(uri: str, parts: tuple[Any, ...]) -> None:
    assert parse_uri(uri) == WebSocketURI(*parts)


def test_what_a_uri_asks_for() -> None:
    assert parse_uri("ws://h?b").resource_name == "/?b"
    assert parse_uri("ws://h/a").resource_name == "/a"
    assert parse_uri("ws://u:p@h").user_info == ("u", "p")
    assert parse_uri("ws://h").user_info is None


@pytest.mark.parametrize("uri", ["http://x", "", "ws://", "ws:/x", "ws://x#f", "ws://u@h/", None, b"ws://x"])
def test_what_is_no_uri_of_a_websocket(uri: Any) -> None:
    with pytest.raises(InvalidURI):
        parse_uri(uri)


def test_a_port_that_is_none() -> None:
    for uri in ("ws://h:99999/", "ws://h:x/"):
        with pytest.raises(ValueError, match=r"[Pp]ort"):
            parse_uri(uri)


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        (("h", 80, False), "h"),
        (("h", 443, True), "h"),
        (("h", 443, False), "h:443"),
        (("::1", 80, False), "[::1]"),
        (("::1", 81, False), "[::1]:81"),
        (("1.2.3.4", 80, True), "1.2.3.4:80"),
    ],
)
def test_build_host(arguments: tuple[Any, ...], host: str) -> None:
    assert headers.build_host(*arguments) == host
    assert headers.build_host("h", 80, False, always_include_port=True) == "h:80"


@pytest.mark.parametrize("header", ["a, b", "a,b", "a,,b", ",a ,\tb", "a, b,"])
def test_lists_are_parsed(header: str) -> None:
    assert headers.parse_connection(header) == headers.parse_upgrade(header) == headers.parse_subprotocol(header) == ["a", "b"]
    assert headers.parse_extension(header) == [("a", []), ("b", [])]


@pytest.mark.parametrize(
    ("header", "error", "pos"),
    [("", "expected token", 0), (",", "expected token", 1), (" a", "expected token", 0), ("a b", "expected comma", 2),
     ("a/b", "expected comma", 1), ('"x"', "expected token", 0)],
)  # fmt: skip
def test_what_is_no_list_is_an_error_at_its_place(header: str, error: str, pos: int) -> None:
    for parse in (headers.parse_connection, headers.parse_subprotocol, headers.parse_extension):
        with pytest.raises(InvalidHeaderFormat, match=rf"{error} at {pos} in {header}$"):
            parse(header)


def test_upgrade_may_name_a_version() -> None:
    assert headers.parse_upgrade("h2c, HTTP/2.0, websocket") == ["h2c", "HTTP/2.0", "websocket"]
    with pytest.raises(InvalidHeaderFormat, match="expected protocol at 0"):
        headers.parse_upgrade("/x")


@pytest.mark.parametrize("header", ['a; b; c=1, d; e="x"', 'a;b ; c = "1" ,d;e=x', 'a; b; c="\\1", d; e=x'])
def test_extensions_have_parameters(header: str) -> None:
    assert headers.parse_extension(header) == [("a", [("b", None), ("c", "1")]), ("d", [("e", "x")])]
    assert headers.build_extension([("a", [("b", None), ("c", "1")]), ("d", [])]) == "a; b; c=1, d"  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("header", "error"),
    [("a;", "expected token at 2"), ("a; b=", "expected token at 5"), ('a; b="c', "expected quoted string at 5"),
     ('a; b="c d"', "invalid quoted header content at 5"), ('a;b=""', "invalid quoted header content at 4")],
)  # fmt: skip
def test_what_is_no_parameter(header: str, error: str) -> None:
    with pytest.raises(InvalidHeaderFormat, match=error):
        headers.parse_extension(header)


@pytest.mark.parametrize(
    ("value", "error"),
    [("abc", TypeError), (1, TypeError), (None, TypeError), ([1], TypeError), (["a b"], ValueError), ([""], ValueError)],
)
def test_what_is_no_list_of_subprotocols(value: Any, error: type[Exception]) -> None:
    headers.validate_subprotocols(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(error):
        headers.validate_subprotocols(value)


def test_basic_authentication() -> None:
    assert headers.build_www_authenticate_basic('r"\\x') == 'Basic realm="r\\"\\\\x", charset="UTF-8"'
    with pytest.raises(ValueError, match="invalid characters"):
        headers.build_www_authenticate_basic("a\n")
    assert headers.build_authorization_basic("\xe9", "p:x") == "Basic w6k6cDp4"
    assert headers.parse_authorization_basic("basic w6k6cDp4") == ("\xe9", "p:x")
    with pytest.raises(AssertionError):
        headers.build_authorization_basic("a:b", "c")


@pytest.mark.parametrize("header", ["", "Basic", "Basic  dTpw", "Basic dTpw x", "Basic !!", "Basic dTp", "Bearer x", "Basic dQ=="])
def test_what_is_no_basic_authorization(header: str) -> None:
    with pytest.raises(InvalidHeader, match="Authorization"):
        headers.parse_authorization_basic(header)


CLIENT, SERVER = ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (CLIENT, {"server_max_window_bits": 7}),
        (CLIENT, {"client_max_window_bits": 8}),
        (CLIENT, {"compress_settings": {"wbits": 9}}),
        (SERVER, {"server_max_window_bits": 8}),
        (SERVER, {"client_max_window_bits": True}),
        (SERVER, {"client_max_window_bits": 16}),
        (SERVER, {"require_client_max_window_bits": True}),
    ],
)
def test_settings_of_deflate_that_cannot_be(factory: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window_bits"):
        factory(**arguments)


def test_settings_of_deflate() -> None:
    client = CLIENT(server_max_window_bits=8)
    assert (client.name, client.client_max_window_bits, client.server_max_window_bits) == ("permessage-deflate", True, 8)
    assert SERVER().client_max_window_bits is None


@pytest.mark.parametrize(("version", "home"), [("16.9", "picows.websockets.exceptions"), ("17.0", "websockets.exceptions")])
def test_types_of_an_older_package_are_not_taken(version: str, home: str, tmp_path: Path) -> None:
    """They lack what ours have, and the two do not mix."""
    package = tmp_path / "websockets"
    package.mkdir()
    (package / "__init__.py").write_text(f"__version__ = '{version}'\n")
    (package / "exceptions.py").write_text("class WebSocketException(Exception): pass\n")
    code = "from picows.websockets.exceptions import WebSocketException as error; print(error.__module__)"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == home
