"""Opcodes, close codes and what a close frame says."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ._types import shared
from .exceptions import ProtocolError

__all__ = ["Close", "CloseCode", "Frame", "Opcode"]


@shared
class Opcode(enum.IntEnum):
    """RFC 6455 section 11.8."""

    CONT, TEXT, BINARY = 0x00, 0x01, 0x02
    CLOSE, PING, PONG = 0x08, 0x09, 0x0A


@shared
class CloseCode(enum.IntEnum):
    """RFC 6455 section 11.7, and what has been registered since."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


_MEANINGS = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received [internal]",
    1006: "abnormal closure [internal]",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS handshake failure [internal]",
}
_NEVER_SENT = (1005, 1006, 1015)  # RFC 6455 section 7.4.1


def _meaning(code: int) -> str:
    if 3000 <= code < 4000:
        return "registered"
    if 4000 <= code < 5000:
        return "private use"
    return _MEANINGS.get(code, "unknown")


@shared
@dataclass
class Close:
    """The code and the reason of a close frame."""

    code: CloseCode | int
    reason: str

    def __str__(self) -> str:
        return f"{self.code:d} ({_meaning(self.code)}) {self.reason}".rstrip()

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Close:
        """What the payload of a close frame says.

        :raises ProtocolError: it is one byte, or its code may not be sent
        :raises UnicodeDecodeError: the reason is no UTF-8
        """
        payload = bytes(data)
        if not payload:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        if len(payload) == 1:
            raise ProtocolError("close frame too short")
        close = cls(int.from_bytes(payload[:2], "big"), payload[2:].decode())
        close.check()
        return close

    def serialize(self) -> bytes:
        """The payload of a close frame that says this."""
        self.check()
        return self.code.to_bytes(2, "big") + self.reason.encode()

    def check(self) -> None:
        """:raises ProtocolError: the code may not be sent"""
        known = self.code in _MEANINGS and self.code not in _NEVER_SENT
        if not (known or 3000 <= self.code < 5000):
            raise ProtocolError("invalid status code")


@shared
@dataclass
class Frame:
    """A frame, as it would be sent."""

    opcode: Opcode
    data: bytes | bytearray | memoryview
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False
