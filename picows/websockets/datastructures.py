"""The headers of HTTP, as `websockets` holds them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Protocol, Union

from ._types import shared
from .exceptions import InvalidHeaderValue

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

# RFC 9110 section 5.5: visible characters, those above ASCII as well, space and tab.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@shared
class MultipleValuesError(LookupError):
    """A header that was looked up has several values."""

    def __str__(self) -> str:
        return repr(self.args[0]) if len(self.args) == 1 else super().__str__()


@shared
class Headers(MutableMapping[str, str]):
    """Headers in their order; names whatever their case, each with one value or more.

    Setting a header adds to those of its name; deleting one deletes all of its name. Looking one up
    raises KeyError if there is none, and :exc:`MultipleValuesError` if there are several.
    """

    __slots__ = ("_fields", "_values")

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._fields: list[tuple[str, str]] = []
        self._values: dict[str, list[str]] = {}
        self.update(*args, **kwargs)

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self._fields) + "\r\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fields!r})"

    def copy(self) -> Headers:
        copy = type(self)()
        for name, value in self._fields:
            copy.set_insecure(name, value)
        return copy

    def serialize(self) -> bytes:
        """As they stand in a request or a response, with the empty line behind them."""
        return str(self).encode("latin-1")

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: str) -> str:
        values = self._values[key.lower()]
        if len(values) > 1:
            raise MultipleValuesError(key)
        return values[0]

    def __setitem__(self, key: str, value: str) -> None:
        if isinstance(value, str) and not _VALUE.fullmatch(value):
            raise InvalidHeaderValue(key, value)
        self.set_insecure(key, value)

    def __delitem__(self, key: str) -> None:
        name = key.lower()
        del self._values[name]
        self._fields = [field for field in self._fields if field[0].lower() != name]

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Headers) else NotImplemented

    def clear(self) -> None:
        self._fields.clear()
        self._values.clear()

    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        if len(args) == 1 and isinstance(args[0], Headers):
            args = (list(args[0].raw_items()),)
        super().update(*args, **kwargs)

    def get_all(self, key: str) -> list[str]:
        """All values of a header, none if there is no such header."""
        return list(self._values.get(key.lower(), ()))

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """The headers as they were set, each with its one value."""
        return iter(self._fields)

    def set_insecure(self, key: str, value: str) -> None:
        """Add a header without a look at its value."""
        self._values.setdefault(key.lower(), []).append(value)
        self._fields.append((key, value))


class SupportsKeysAndGetItem(Protocol):
    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str) -> str: ...


HeadersLike = Union[Headers, Mapping[str, str], Iterable["tuple[str, str]"], SupportsKeysAndGetItem]
