"""Header values of the opening handshake, built and parsed (RFC 9110 section 5.6)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from .exceptions import InvalidHeaderFormat, InvalidHeaderValue
from .typing import (
    ConnectionOption,
    ExtensionHeader,
    ExtensionName,
    ExtensionParameter,
    Subprotocol,
    UpgradeProtocol,
)

__all__ = [
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

Item = TypeVar("Item")

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_PROTOCOL = re.compile(rf"{_TOKEN.pattern}(?:/{_TOKEN.pattern})?")
_QUOTED = re.compile(r'"((?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e\x80-\xff])*)"')
_TOKEN68 = re.compile(r"[A-Za-z0-9-._~+/]+=*")
_SPACE = re.compile(r"[\t ]*")


def build_host(host: str, port: int, secure: bool, *, always_include_port: bool = False) -> str:
    """The value of Host; the port only where it is not the usual one, or always."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.version == 6:
            host = f"[{host}]"
    usual = port == (443 if secure else 80)
    return host if usual and not always_include_port else f"{host}:{port}"


def parse_connection(header: str) -> list[ConnectionOption]:
    """The options of Connection."""
    reader = _Reader("Connection", header)
    return reader.items(lambda: ConnectionOption(reader.take(_TOKEN, "token")))


def parse_upgrade(header: str) -> list[UpgradeProtocol]:
    """The protocols of Upgrade."""
    reader = _Reader("Upgrade", header)
    return reader.items(lambda: UpgradeProtocol(reader.take(_PROTOCOL, "protocol")))


def parse_extension(header: str) -> list[ExtensionHeader]:
    """The extensions of Sec-WebSocket-Extensions, each with its parameters."""
    reader = _Reader("Sec-WebSocket-Extensions", header)
    return reader.items(reader.extension)


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """The value of Sec-WebSocket-Extensions."""
    return ", ".join("; ".join([name, *map(_parameter, parameters)]) for name, parameters in extensions)


def _parameter(parameter: ExtensionParameter) -> str:
    name, value = parameter
    return name if value is None else f"{name}={value}"


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """The names in Sec-WebSocket-Protocol."""
    reader = _Reader("Sec-WebSocket-Protocol", header)
    return reader.items(lambda: Subprotocol(reader.take(_TOKEN, "token")))


def build_subprotocol(subprotocols: Sequence[Subprotocol]) -> str:
    """The value of Sec-WebSocket-Protocol."""
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[Subprotocol]) -> None:
    """:raises TypeError, ValueError: it is no list of subprotocols"""
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a list, not a str")
    if not isinstance(subprotocols, Sequence):
        raise TypeError("subprotocols must be a list")
    for subprotocol in subprotocols:
        if not _TOKEN.fullmatch(subprotocol):
            raise ValueError(f"invalid subprotocol: {subprotocol}")


def build_www_authenticate_basic(realm: str) -> str:
    """The value of WWW-Authenticate for Basic (RFC 7617)."""
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", realm):
        raise ValueError("invalid characters for quoted-string encoding")
    quoted = re.sub(r'(["\\])', r"\\\1", realm)
    return f'Basic realm="{quoted}", charset="UTF-8"'


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """The user and the password in an Authorization of Basic (RFC 7617)."""
    reader = _Reader("Authorization", header)
    scheme = reader.take(_TOKEN, "token")
    if scheme.lower() != "basic":
        raise InvalidHeaderValue("Authorization", f"unsupported scheme: {scheme}")
    if not reader.skip(" "):
        raise reader.error("expected space after scheme")
    credentials = reader.take(_TOKEN68, "token68")
    if not reader.at_end():
        raise reader.error("trailing data")
    try:
        user_pass = base64.b64decode(credentials).decode(errors="replace")
    except binascii.Error:
        raise InvalidHeaderValue("Authorization", "expected base64-encoded credentials") from None
    username, colon, password = user_pass.partition(":")
    if not colon:
        raise InvalidHeaderValue("Authorization", "expected username:password credentials")
    return username, password


def build_authorization_basic(username: str, password: str) -> str:
    """The value of Authorization for Basic (RFC 7617)."""
    if ":" in username:
        raise AssertionError(f"the username of Basic may not contain a colon, got {username!r}")
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class _Reader:
    """Walks through a header value."""

    def __init__(self, name: str, header: str) -> None:
        self.name = name
        self.header = header
        self.pos = 0

    def error(self, what: str) -> InvalidHeaderFormat:
        return InvalidHeaderFormat(self.name, what, self.header, self.pos)

    def at_end(self) -> bool:
        return self.pos == len(self.header)

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self.header, self.pos)
        if match is None:
            raise self.error(f"expected {what}")
        self.pos = match.end()
        return match[0]

    def skip(self, mark: str) -> bool:
        found = self.header.startswith(mark, self.pos)
        self.pos += found
        return found

    def skip_space(self) -> None:
        self.take(_SPACE, "space")

    def items(self, item: Callable[[], Item]) -> list[Item]:
        """A comma-separated list of at least one item; empty ones are left out."""
        found: list[Item] = []
        self.skip_commas()
        while not found or not self.at_end():
            found.append(item())
            self.skip_space()
            if not self.at_end() and not self.header.startswith(",", self.pos):
                raise self.error("expected comma")
            self.skip_commas()
        return found

    def skip_commas(self) -> None:
        while self.skip(","):
            self.skip_space()

    def extension(self) -> ExtensionHeader:
        name = ExtensionName(self.take(_TOKEN, "token"))
        parameters = []
        self.skip_space()
        while self.skip(";"):
            self.skip_space()
            parameters.append(self.parameter())
            self.skip_space()
        return name, parameters

    def parameter(self) -> ExtensionParameter:
        name = self.take(_TOKEN, "token")
        self.skip_space()
        if not self.skip("="):
            return name, None
        self.skip_space()
        if not self.header.startswith('"', self.pos):
            return name, self.take(_TOKEN, "token")
        start = self.pos
        quoted = self.take(_QUOTED, "quoted string")
        value = re.sub(r"\\(.)", r"\1", quoted[1:-1])
        if not _TOKEN.fullmatch(value):  # RFC 6455 section 9.1
            self.pos = start
            raise self.error("invalid quoted header content")
        return name, value
