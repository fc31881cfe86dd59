from typing import NamedTuple

from _typeshed import ReadableBuffer, WriteableBuffer
from typing_extensions import Self, disjoint_base

STATUS_NAMES: dict[int, str]

class ParsedFrame(NamedTuple):
    opcode: int
    fin: bool
    rsv1: bool
    rsv2: bool
    rsv3: bool
    payload: bytes
    tail_size: int
    last_in_buffer: bool

class CodecError(Exception):
    status: str
    close_code: int
    sentence: str
    def __init__(self, status: str, close_code: int, sentence: str) -> None: ...

@disjoint_base
class FrameReader:
    @property
    def error(self) -> CodecError | None: ...
    @property
    def unread(self) -> int: ...
    @property
    def needed(self) -> int: ...
    def __new__(cls, expect_masked: bool, *, max_frame_size: int = ..., capacity: int = ...) -> Self: ...
    def feed(self, data: bytes) -> list[ParsedFrame]: ...

def frame_header(
    opcode: int,
    payload_size: int,
    *,
    fin: bool = True,
    rsv1: bool = False,
    rsv2: bool = False,
    rsv3: bool = False,
    mask_key: bytes | None = None,
) -> bytes: ...
def write_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv1: bool = False,
    rsv2: bool = False,
    rsv3: bool = False,
    mask_key: bytes | None = None,
) -> bytes: ...
def mask(data: bytes, key: bytes) -> bytes: ...
def mask_into(
    target: WriteableBuffer,
    target_offset: int,
    source: ReadableBuffer,
    source_offset: int,
    size: int,
    key: bytes,
) -> None: ...
def write_close(code: int, reason: bytes = b"") -> bytes: ...
def parse_close(payload: bytes) -> tuple[int, bytes]: ...
def may_travel(code: int) -> bool: ...
def is_utf8(*pieces: bytes) -> bool | None: ...
