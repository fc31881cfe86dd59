"""The functions that connect and serve, and the types of their arguments, by an old address."""

from collections.abc import Callable, Iterable, Mapping
from typing import Union

from .client import ClientListenerFactory, ws_connect
from .picows import WSListener
from .proxy import SocketFactory
from .server import ServerListenerFactory, ws_create_server
from .settings import LoggerLike
from .upgrade import WSUpgradeRequest, WSUpgradeResponse

__all__ = [
    "ClientListenerFactory",
    "LoggerLike",
    "ServerListenerFactory",
    "WSHeadersLike",
    "WSListenerFactory",
    "WSLoggerLike",
    "WSServerListenerFactory",
    "WSSocketFactory",
    "ws_connect",
    "ws_create_server",
]

WSListenerFactory = Union[
    Callable[[], WSListener], Callable[[WSUpgradeRequest, WSUpgradeResponse], WSListener]
]
WSServerListenerFactory = ServerListenerFactory
WSSocketFactory = SocketFactory
WSLoggerLike = Union[str, LoggerLike, None]
WSHeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]]]
