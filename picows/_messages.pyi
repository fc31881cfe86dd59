from typing import Protocol, final

from typing_extensions import Self

class _Inflater(Protocol):
    def inflate(self, data: memoryview, fin: bool, max_size: int) -> bytes: ...

@final
class MessageAssembler:
    def __new__(cls, max_message_size: int, inflater: _Inflater | None = None) -> Self: ...
