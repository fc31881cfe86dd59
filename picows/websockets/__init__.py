"""The asyncio API of the package `websockets`: its names in the same modules, on the engine of picows.

Nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._place import ABSENT, ABSENT_NAMES, absent, take_place
from .version import version as __version__

if TYPE_CHECKING:
    from .asyncio.client import ClientConnection, connect, unix_connect
    from .asyncio.router import Router, route, unix_route
    from .asyncio.server import Server, ServerConnection, basic_auth, broadcast, serve, unix_serve
    from .datastructures import Headers, HeadersLike, MultipleValuesError
    from .exceptions import (
        ConcurrencyError,
        ConnectionClosed,
        ConnectionClosedError,
        ConnectionClosedOK,
        DuplicateParameter,
        HeaderLineTooLong,
        InvalidHandshake,
        InvalidHeader,
        InvalidHeaderFormat,
        InvalidHeaderValue,
        InvalidMessage,
        InvalidMethod,
        InvalidOrigin,
        InvalidParameterName,
        InvalidParameterValue,
        InvalidProtocol,
        InvalidProxy,
        InvalidProxyMessage,
        InvalidProxyStatus,
        InvalidState,
        InvalidStatus,
        InvalidUpgrade,
        InvalidURI,
        NegotiationError,
        PayloadTooBig,
        ProtocolError,
        ProxyError,
        RequestLineTooLong,
        SecurityError,
        StatusLineTooLong,
        TooManyFragments,
        TooManyHeaders,
        WebSocketException,
    )
    from .frames import Close, CloseCode, Frame, Opcode
    from .http11 import Request, Response
    from .protocol import Side, State
    from .typing import (
        Data,
        ExtensionName,
        ExtensionParameter,
        LoggerLike,
        Origin,
        StatusLike,
        Subprotocol,
    )

__all__ = [
    "ClientConnection",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Data",
    "DuplicateParameter",
    "ExtensionName",
    "ExtensionParameter",
    "Frame",
    "HeaderLineTooLong",
    "Headers",
    "HeadersLike",
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
    "LoggerLike",
    "MultipleValuesError",
    "NegotiationError",
    "Opcode",
    "Origin",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "Request",
    "RequestLineTooLong",
    "Response",
    "Router",
    "SecurityError",
    "Server",
    "ServerConnection",
    "Side",
    "State",
    "StatusLike",
    "StatusLineTooLong",
    "Subprotocol",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
    "__version__",
    "basic_auth",
    "broadcast",
    "connect",
    "route",
    "serve",
    "unix_connect",
    "unix_route",
    "unix_serve",
]

_MODULES = {
    "ClientConnection": "asyncio.client",
    "Close": "frames",
    "CloseCode": "frames",
    "ConcurrencyError": "exceptions",
    "ConnectionClosed": "exceptions",
    "ConnectionClosedError": "exceptions",
    "ConnectionClosedOK": "exceptions",
    "Data": "typing",
    "DuplicateParameter": "exceptions",
    "ExtensionName": "typing",
    "ExtensionParameter": "typing",
    "Frame": "frames",
    "HeaderLineTooLong": "exceptions",
    "Headers": "datastructures",
    "HeadersLike": "datastructures",
    "InvalidHandshake": "exceptions",
    "InvalidHeader": "exceptions",
    "InvalidHeaderFormat": "exceptions",
    "InvalidHeaderValue": "exceptions",
    "InvalidMessage": "exceptions",
    "InvalidMethod": "exceptions",
    "InvalidOrigin": "exceptions",
    "InvalidParameterName": "exceptions",
    "InvalidParameterValue": "exceptions",
    "InvalidProtocol": "exceptions",
    "InvalidProxy": "exceptions",
    "InvalidProxyMessage": "exceptions",
    "InvalidProxyStatus": "exceptions",
    "InvalidState": "exceptions",
    "InvalidStatus": "exceptions",
    "InvalidURI": "exceptions",
    "InvalidUpgrade": "exceptions",
    "LoggerLike": "typing",
    "MultipleValuesError": "datastructures",
    "NegotiationError": "exceptions",
    "Opcode": "frames",
    "Origin": "typing",
    "PayloadTooBig": "exceptions",
    "ProtocolError": "exceptions",
    "ProxyError": "exceptions",
    "Request": "http11",
    "RequestLineTooLong": "exceptions",
    "Response": "http11",
    "Router": "asyncio.router",
    "SecurityError": "exceptions",
    "Server": "asyncio.server",
    "ServerConnection": "asyncio.server",
    "Side": "protocol",
    "State": "protocol",
    "StatusLike": "typing",
    "StatusLineTooLong": "exceptions",
    "Subprotocol": "typing",
    "TooManyFragments": "exceptions",
    "TooManyHeaders": "exceptions",
    "WebSocketException": "exceptions",
    "basic_auth": "asyncio.server",
    "broadcast": "asyncio.server",
    "connect": "asyncio.client",
    "route": "asyncio.router",
    "serve": "asyncio.server",
    "unix_connect": "asyncio.client",
    "unix_route": "asyncio.router",
    "unix_serve": "asyncio.server",
}
_SUBMODULES = {"headers", "uri", "version", *(home.partition(".")[0] for home in _MODULES.values())}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ABSENT or name in ABSENT_NAMES:
        raise absent(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})


take_place()
