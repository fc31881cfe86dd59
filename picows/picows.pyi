import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Any, Final, final

from typing_extensions import Buffer, Self, disjoint_base

from .deflate import WSDeflate
from .upgrade import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

PICOWS_DEBUG_LL: Final[int]

class WSMsgType(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

class WSCloseCode(IntEnum):
    NO_INFO = 0
    OK = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    ABNORMAL_CLOSURE = 1006
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014

class WSAutoPingStrategy(IntEnum):
    PING_WHEN_IDLE = 1
    PING_PERIODICALLY = 2

class WSSlowPeerPolicy(IntEnum):
    DISCONNECT = 1
    DROP_NEWEST = 2
    RAISE = 3

@final
class WSCloseInfo:
    def __init__(self, code: WSCloseCode | int, reason: str | None) -> None: ...
    @property
    def code(self) -> WSCloseCode | int: ...
    @property
    def reason(self) -> str | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class WSCloseHandshake:
    def __init__(self, sent: WSCloseInfo | None, recv: WSCloseInfo | None, recv_then_sent: bool) -> None: ...
    @property
    def sent(self) -> WSCloseInfo | None: ...
    @property
    def recv(self) -> WSCloseInfo | None: ...
    @property
    def recv_then_sent(self) -> bool: ...

@disjoint_base
class WSFrame:
    @property
    def msg_type(self) -> WSMsgType: ...
    @property
    def fin(self) -> bool: ...
    @property
    def rsv1(self) -> bool: ...
    @property
    def rsv2(self) -> bool: ...
    @property
    def rsv3(self) -> bool: ...
    @property
    def payload_size(self) -> int: ...
    @property
    def tail_size(self) -> int: ...
    @property
    def last_in_buffer(self) -> bool: ...
    def get_payload_as_bytes(self) -> bytes: ...
    def get_payload_as_utf8_text(self) -> str: ...
    def get_payload_as_ascii_text(self) -> str: ...
    def get_payload_as_memoryview(self) -> memoryview: ...
    def get_close_code(self) -> WSCloseCode: ...
    def get_close_message(self) -> bytes | None: ...
    def get_close_reason(self) -> str | None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@disjoint_base
class WSTransport:
    @property
    def underlying_transport(self) -> asyncio.Transport: ...
    @property
    def request(self) -> WSUpgradeRequest: ...
    @property
    def response(self) -> WSUpgradeResponse: ...
    @property
    def close_handshake(self) -> WSCloseHandshake | None: ...
    @property
    def is_client_side(self) -> bool: ...
    @property
    def is_secure(self) -> bool: ...
    @property
    def is_close_frame_sent(self) -> bool: ...
    @property
    def is_disconnected(self) -> bool: ...
    def send(
        self,
        msg_type: WSMsgType,
        message: str | Buffer | None,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
        compress: bool | None = None,
    ) -> bool: ...
    def send_reuse_external_bytearray(
        self,
        msg_type: WSMsgType,
        buffer: bytearray,
        msg_offset: int,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> bool: ...
    def send_ping(self, message: str | Buffer | None = None) -> None: ...
    def send_pong(self, message: str | Buffer | None = None) -> None: ...
    def send_close(self, close_code: int = WSCloseCode.NO_INFO, close_message: str | Buffer | None = None) -> None: ...  # noqa: PYI011
    def disconnect(self, graceful: bool = True) -> None: ...
    def notify_user_specific_pong_received(self) -> None: ...
    def flush(self) -> None: ...
    def cork(self) -> AbstractContextManager[None]: ...
    @property
    def write_buffer_size(self) -> int: ...
    async def close(
        self,
        code: int = WSCloseCode.OK,  # noqa: PYI011
        reason: str | Buffer | None = None,
        timeout: float | None = 10,
    ) -> None: ...
    async def wait_disconnected(self) -> None: ...
    async def measure_roundtrip_time(self, rounds: int) -> list[float]: ...

def ws_broadcast(
    transports: Iterable[WSTransport],
    msg_type: WSMsgType,
    message: str | Buffer | None,
    fin: bool = True,
    compress: bool | None = None,
) -> int: ...
@disjoint_base
class WSListener:
    def on_ws_connected(self, transport: WSTransport) -> None: ...
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None: ...
    def on_ws_disconnected(self, transport: WSTransport) -> None: ...
    def send_user_specific_ping(self, transport: WSTransport) -> None: ...
    def is_user_specific_pong(self, frame: WSFrame) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

# What api.py makes connections with, and server.py ends them; not for users.

@final
class Registry:
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[WSTransport]: ...
    def __contains__(self, transport: object, /) -> bool: ...

def end_connections(registry: Registry, graceful: bool, refuse: bool) -> None: ...
async def wait_ended(registry: Registry) -> None: ...

@final
class ConnectionOptions:
    def __init__(
        self,
        *,
        listener_factory: Callable[..., WSListener | WSUpgradeResponseWithListener | None],
        is_client_side: bool,
        disconnect_on_exception: bool,
        handshake_timeout: float | None,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        enable_auto_ping: bool,
        auto_ping_idle_timeout: float,
        auto_ping_reply_timeout: float,
        auto_ping_strategy: WSAutoPingStrategy,
        enable_auto_pong: bool,
        max_frame_size: int,
        read_buffer_init_size: int,
        coalesce_writes: bool,
        enable_auto_close: bool,
        max_write_buffer_size: int,
        slow_peer: WSSlowPeerPolicy,
        receive_timeout: float,
        compression: WSDeflate | None,
        assemble_messages: bool,
        max_message_size: int,
    ) -> None: ...
    @property
    def registry(self) -> Registry: ...

class WSProtocol(asyncio.BufferedProtocol):
    def __new__(
        cls, options: ConnectionOptions, request: WSUpgradeRequest | None = None, is_secure: bool | None = None
    ) -> Self: ...
    @property
    def transport(self) -> WSTransport | None: ...
    @property
    def listener(self) -> WSListener | None: ...
    async def wait_upgraded(self) -> tuple[WSTransport, WSListener]: ...
    def abort(self) -> None: ...
