"""Handlers, routes and hooks: a small web application whose clients are WebSockets, on our own server or an ASGI server."""

from ..upgrade import WSUpgradeRequest, WSUpgradeResponse
from . import exceptions, status
from .app import ASyncApp
from .exceptions import WebSocketDisconnect, WebSocketProtocolError
from .exchange import ASGIScope
from .routing import Route
from .websocket import WebSocket

__all__ = [
    "ASGIScope",
    "ASyncApp",
    "Route",
    "WSUpgradeRequest",
    "WSUpgradeResponse",
    "WebSocket",
    "WebSocketDisconnect",
    "WebSocketProtocolError",
    "exceptions",
    "status",
]
