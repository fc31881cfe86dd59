"""Clients and their certificates: whom they trust, and what they show."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from picows import WSListener, WSMsgType, WSTransport
from picows.cli import main
from tests.cli.servers import serving
from tests.connection.proxies import CERTIFICATE, new_server_tls, server_tls

CLIENT = Path(__file__).parent / "client.pem"  # of a client, with its key

Captured = pytest.CaptureFixture[str]


class Greeter(WSListener):
    """Says whose certificate the client has shown."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        shown = transport.underlying_transport.get_extra_info("peercert")
        transport.send(WSMsgType.TEXT, f"{shown['subject'][0][0][1]} has come" if shown else "somebody has come")


def greet(url: str, *options: object) -> int:
    return main(["connect", url, "--count", "1", "--listen", *map(str, options)])


# By the loop itself: servers of aiofastnet leave transports open where a handshake has failed.
@pytest.fixture
def server() -> Iterator[str]:
    with serving(lambda request: Greeter(), ssl=server_tls(), use_aiofastnet=False) as url:
        yield url.replace("ws:", "wss:")


@pytest.fixture
def strict_server() -> Iterator[str]:
    tls = new_server_tls()
    tls.load_verify_locations(CLIENT)
    tls.verify_mode = ssl.CERT_REQUIRED
    with serving(lambda request: Greeter(), ssl=tls, use_aiofastnet=False) as url:
        yield url.replace("ws:", "wss:")


def test_a_stranger_is_not_trusted(server: str, capsys: Captured) -> None:
    assert greet(server) == 1
    assert re.fullmatch(r"picows: .*CERTIFICATE_VERIFY_FAILED.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("options", [("--ca", CERTIFICATE), ("--insecure",)])
def test_who_is_trusted_is_told(server: str, capsys: Captured, options: tuple[object, ...]) -> None:
    assert greet(server, *options) == 0
    assert capsys.readouterr().out == "somebody has come\n"


def test_another_name_needs_more_than_an_authority(capsys: Captured) -> None:
    with serving(lambda request: Greeter(), "127.0.0.2", ssl=server_tls(), use_aiofastnet=False) as url:
        url = url.replace("ws:", "wss:")
        assert greet(url, "--ca", CERTIFICATE) == 1
        assert "IP address mismatch" in capsys.readouterr().err
        assert greet(url, "--insecure", "--ca", CERTIFICATE) == 0


def test_a_server_that_wants_a_certificate_gets_it(strict_server: str, capsys: Captured, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    text = CLIENT.read_text()
    for path, name in ((certificate, "CERTIFICATE"), (key, "PRIVATE KEY")):
        found = re.search(rf"-----BEGIN {name}-----.*?-----END {name}-----\n", text, re.DOTALL)
        assert found
        path.write_text(found[0])
    assert greet(strict_server, "--insecure") == 1
    assert capsys.readouterr().out == ""
    for options in (("--cert", CLIENT), ("--key", CLIENT), ("--cert", certificate, "--key", key)):
        assert greet(strict_server, "--insecure", *options) == 0
        assert capsys.readouterr().out == "a client of the tests has come\n"
