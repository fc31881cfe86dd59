"""Which types are those of the installed package `websockets`, so that its users know them.

An `except websockets.ConnectionClosed` or an `isinstance` in a library has to hold for what we
raise and return. So the types that carry no behaviour of a connection are taken from `websockets`
where it is installed, each by its documented name; what it does not have, and all of them where it
is not installed, are our own of the same shape. So are all beside a version of `websockets` that is
older than the one we follow. It lacks some of them, attributes of others, and checks: headers there
take line breaks in their values.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, TypeVar

OURS = __name__.rpartition(".")[0]
STOOD_FOR = "websockets"
_FOLLOWED = 17  # the version of it whose types ours are like

# The table: of which module which types.
SHARED: dict[str, frozenset[str]] = {
    "datastructures": frozenset({"Headers", "MultipleValuesError"}),
    "exceptions": frozenset(
        {
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
        }
    ),
    "frames": frozenset({"Close", "CloseCode", "Frame", "Opcode"}),
    "http11": frozenset({"Request", "Response"}),
    "protocol": frozenset({"Side", "State"}),
    "uri": frozenset({"WebSocketURI"}),
}

Type = TypeVar("Type", bound="type[Any]")


def shared(own: Type) -> Type:
    """Decorates one of our own types: the type of that name in `websockets` where there is one."""
    module = own.__module__.rpartition(".")[2]
    if own.__name__ not in SHARED[module]:
        raise LookupError(f"{own.__qualname__} does not stand in the table of shared types")
    theirs: Type = getattr(THEIRS[module], own.__name__, own)
    return theirs


def _theirs(module: str) -> ModuleType | None:
    """A module of the package `websockets`, never of ourselves in its place."""
    name = f"{STOOD_FOR}.{module}"
    loaded = sys.modules.get(name)
    if loaded is not None:
        return None if _is_ours(loaded) or _is_older(sys.modules.get(STOOD_FOR)) else loaded
    if _is_ours(sys.modules.get(STOOD_FOR)):
        return None
    try:
        if _is_older(importlib.import_module(STOOD_FOR)):
            return None
        return importlib.import_module(name)
    except ImportError:
        return None


def _is_ours(module: ModuleType | None) -> bool:
    return module is not None and module.__name__.partition(".")[0] == OURS.partition(".")[0]


def _is_older(package: ModuleType | None) -> bool:
    version = getattr(package, "__version__", None)
    return isinstance(version, str) and int(version.partition(".")[0]) < _FOLLOWED


# Decided once, for all of them: an exception of theirs among types of ours would fit nowhere.
THEIRS = {module: _theirs(module) for module in SHARED}
