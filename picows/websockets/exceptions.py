"""The errors of `websockets`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ._types import shared

if TYPE_CHECKING:
    from .frames import Close
    from .http11 import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
]


@shared
class WebSocketException(Exception):
    """The base of all errors here."""


@shared
class ConnectionClosed(WebSocketException):
    """The connection is closed.

    :param rcvd: the close frame that was received, or None
    :param sent: the close frame that was sent, or None
    :param rcvd_then_sent: which of the two came first, when there are both; None otherwise
    """

    def __init__(
        self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None
    ) -> None:
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        super().__init__(rcvd, sent, rcvd_then_sent)

    def __str__(self) -> str:
        if self.rcvd is None and self.sent is None:
            return "no close frame received or sent"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd is None:
            return f"sent {self.sent}; no close frame received"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"

    @property
    def code(self) -> int:
        _deprecated("ConnectionClosed.code", "rcvd.code")
        return 1006 if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        _deprecated("ConnectionClosed.reason", "rcvd.reason")
        return "" if self.rcvd is None else self.rcvd.reason


def _deprecated(name: str, use: str) -> None:
    warnings.warn(f"{name} is deprecated; use {use}", DeprecationWarning, stacklevel=3)


@shared
class ConnectionClosedOK(ConnectionClosed):
    """Closed properly: both close frames have code 1000 or 1001, or none."""


@shared
class ConnectionClosedError(ConnectionClosed):
    """Closed by an error: a close frame tells of one, or one is missing."""


@shared
class InvalidURI(WebSocketException):
    """Not the URI of a WebSocket."""

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.msg}"


@shared
class InvalidProxy(WebSocketException):
    """Not the URL of a proxy."""

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


@shared
class InvalidHandshake(WebSocketException):
    """The opening handshake failed."""


@shared
class SecurityError(InvalidHandshake):
    """The handshake goes beyond a limit, or against a rule, of security."""


@shared
class RequestLineTooLong(SecurityError):
    """The request line is too long."""


@shared
class StatusLineTooLong(SecurityError):
    """The status line is too long."""


@shared
class HeaderLineTooLong(SecurityError):
    """A header line is too long."""


@shared
class TooManyHeaders(SecurityError):
    """There are too many headers."""


@shared
class TooManyFragments(WebSocketException):
    """A message has too many fragments."""

    def __init__(self, max_fragments: int) -> None:
        super().__init__(f"fragmented message exceeds limit of {max_fragments} frames")


@shared
class ProxyError(InvalidHandshake):
    """The proxy could not be used."""


@shared
class InvalidProxyMessage(ProxyError):
    """The proxy's response is malformed."""


@shared
class InvalidProxyStatus(ProxyError):
    """The proxy refused the connection by its HTTP status."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


@shared
class InvalidMessage(InvalidHandshake):
    """The request or the response is malformed."""


@shared
class InvalidMethod(InvalidHandshake):
    """The method is not GET."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


@shared
class InvalidProtocol(InvalidHandshake):
    """The version of HTTP is not 1.1."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


@shared
class InvalidStatus(InvalidHandshake):
    """The server refused the connection by its HTTP status."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"


@shared
class InvalidHeader(InvalidHandshake):
    """A header is missing (`value` is None), empty or wrong."""

    def __init__(self, name: str, value: str | None = None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if not self.value:
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


@shared
class InvalidHeaderFormat(InvalidHeader):
    """A header cannot be parsed."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")
        self.args: tuple[Any, ...] = (name, error, header, pos)


@shared
class InvalidHeaderValue(InvalidHeader):
    """A header can be parsed, but says something wrong."""


@shared
class InvalidOrigin(InvalidHeader):
    """The Origin is not one of those allowed."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)
        self.args: tuple[Any, ...] = (origin,)


@shared
class InvalidUpgrade(InvalidHeader):
    """Upgrade or Connection do not ask for a WebSocket."""


@shared
class NegotiationError(InvalidHandshake):
    """No extension or subprotocol could be agreed on."""


@shared
class DuplicateParameter(NegotiationError):
    """A parameter of an extension stands there twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


@shared
class InvalidParameterName(NegotiationError):
    """A parameter of an extension is not known."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


@shared
class InvalidParameterValue(NegotiationError):
    """A parameter of an extension has a wrong value."""

    def __init__(self, name: str, value: str | None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if not self.value:
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


@shared
class ProtocolError(WebSocketException):
    """A frame breaks the rules of the protocol."""


@shared
class PayloadTooBig(WebSocketException):
    """A frame, or the message it belongs to, is larger than `max_size`.

    :param size_or_message: the bytes of the frame, or None where they are not known
    :param max_size: how many it may have
    :param current_size: the bytes of the message that came before it; they are added to `max_size`
    """

    def __init__(
        self,
        size_or_message: int | str | None,
        max_size: int | None = None,
        current_size: int | None = None,
    ) -> None:
        super().__init__(size_or_message, max_size, current_size)
        self.message: str | None = size_or_message if isinstance(size_or_message, str) else None
        self.size: int | None = None if isinstance(size_or_message, str) else size_or_message
        self.max_size = max_size
        self.current_size: int | None = None
        self.set_current_size(current_size)

    def __str__(self) -> str:
        if self.message is not None:
            return self.message
        size = "" if self.size is None else f" with {self.size} bytes"
        before = "" if self.current_size is None else f" after reading {self.current_size} bytes"
        return f"frame{size}{before} exceeds limit of {self.max_size} bytes"

    def set_current_size(self, current_size: int | None) -> None:
        if current_size is not None and self.max_size is not None:
            self.max_size += current_size
            self.current_size = current_size


@shared
class InvalidState(WebSocketException, AssertionError):
    """Not possible in the present state of the connection."""


@shared
class ConcurrencyError(WebSocketException, RuntimeError):
    """Somebody else receives already."""
