"""The functions that connect and serve, by the name of the module that once held both."""

from .client import ClientListenerFactory, ws_connect
from .server import ServerListenerFactory, ws_create_server
from .settings import LoggerLike

__all__ = [
    "ClientListenerFactory",
    "LoggerLike",
    "ServerListenerFactory",
    "ws_connect",
    "ws_create_server",
]
