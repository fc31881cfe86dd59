from typing import NamedTuple, Protocol, final

from typing_extensions import Self, disjoint_base

STATUS_NAMES: dict[int, str]

class _Inflater(Protocol):
    def inflate(self, data: memoryview, fin: bool, max_size: int) -> bytes: ...

class Message(NamedTuple):
    opcode: int
    payload: bytes
    copied: bool

@final
class MessageAssembler:
    def __new__(cls, max_message_size: int, inflater: _Inflater | None = None) -> Self: ...

@disjoint_base
class MessageReader:
    @property
    def room(self) -> int: ...
    @property
    def held(self) -> int: ...
    def __new__(cls, max_message_size: int, inflater: _Inflater | None = None) -> Self: ...
    def feed(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> Message | None: ...
