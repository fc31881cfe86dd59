"""What fails in an opening handshake, as the exceptions of `websockets` tell it."""

from __future__ import annotations

from http import HTTPStatus

from python_socks import ProxyError as AnyProxyError

from ..errors import (
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
)
from ..proxy import UnreachableByProxy
from ..upgrade import WSUpgradeResponse
from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    ProxyError,
)
from .http11 import Response

_NO_RESPONSE = "did not receive a valid HTTP response"
_ACCEPT = "sec-websocket-accept"
_EXTENSIONS = "sec-websocket-extensions"
_PROTOCOL = "sec-websocket-protocol"


def from_handshake(error: WSHandshakeError) -> InvalidHandshake:
    """The server's answer is not what it should be."""
    converted = _from_handshake(error)
    if converted.__cause__ is None:
        converted.__cause__ = error
    return converted


def _from_handshake(error: WSHandshakeError) -> InvalidHandshake:
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        return InvalidStatus(shown_response(error.response))
    if isinstance(error, WSInvalidUpgradeError):
        return InvalidUpgrade(error.name, error.value)
    if isinstance(error, WSInvalidHeaderError):
        return _from_header(error)
    converted = InvalidMessage(_NO_RESPONSE)
    if "connection was closed" in str(error):
        converted.__cause__ = EOFError(str(error))      # by which it may be tried again
    return converted


def _from_header(error: WSInvalidHeaderError) -> InvalidHandshake:
    name, value = error.name, error.value
    several = value is not None and "," in value
    if name.lower() == _EXTENSIONS or (name.lower() == _PROTOCOL and not several):
        return NegotiationError(str(error))
    if name.lower() == _ACCEPT and value is not None and not several:
        return InvalidHeaderValue(name, value)
    return InvalidHeader(name, value)


def from_lost_connection(error: ConnectionError) -> InvalidMessage:
    """The connection ended without an answer, by a reset."""
    converted = InvalidMessage(_NO_RESPONSE)
    converted.__cause__ = EOFError(f"the connection was lost before the response: {error!r}")
    return converted


def from_proxy(error: Exception, proxy: str | None) -> Exception:
    """What dialling raised: of the proxy, or the system's, which is left as it is."""
    if isinstance(error, UnreachableByProxy):
        converted: Exception = ProxyError(str(error))
    elif not isinstance(error, AnyProxyError):
        return error
    elif proxy is None or not proxy.startswith("http"):
        converted = ProxyError(f"failed to connect to SOCKS proxy: {error}")
    elif error.error_code is None:
        converted = InvalidProxyMessage(f"{_NO_RESPONSE} from proxy")
    else:
        converted = InvalidProxyStatus(Response(error.error_code, _phrase(error.error_code), Headers()))
    converted.__cause__ = error
    return converted


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def shown_response(response: WSUpgradeResponse) -> Response:
    """A `WSUpgradeResponse` as a `Response`."""
    status = response.status
    return Response(int(status), status.phrase, Headers(list(response.headers.items())), response.body or b"")
