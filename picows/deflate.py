"""Compression of messages: the extension permessage-deflate of both sides (RFC 7692).

Header values in and out, and the payloads of compressed messages; nothing here does I/O, knows
frames or asyncio. Compressing itself is done by zlib, or by a module that can be used like it.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
import zlib as standard_zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Optional

from .errors import WSProtocolError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Agreement", "DeflateKey", "Deflater", "Inflater", "WSDeflate", "accept", "check_answer", "compress_fresh", "offer"]

_NAME = "permessage-deflate"
_SERVER_BITS = "server_max_window_bits"
_CLIENT_BITS = "client_max_window_bits"
_SERVER_FORGETS = "server_no_context_takeover"
_CLIENT_FORGETS = "client_no_context_takeover"

_LARGEST_WINDOW = 15  # bits, of DEFLATE and of who says nothing else (section 7.1.2)
_SMALLEST_WINDOW = 8
_DEFAULT_WINDOW = 12  # where this side has a say

_ISAL = "isal.isal_zlib"

_TAIL = b"\x00\x00\xff\xff"  # what ends a flush, and is not sent at the end of a message (section 7.2.1)
_EMPTY = b"\x00"  # an empty message (section 7.2.3.6)

# A message is inflated in steps, so that no more is inflated than is allowed, and so that what zlib gives
# back of its input, a copy, stays small.
_INPUT_STEP = 16384
_OUTPUT_STEP = 131072
# Each final block needs a new stream, which costs far more than the two bytes that such a block may have.
_MAX_FINAL_BLOCKS = 1000

# Sec-WebSocket-Extensions (RFC 6455 section 9.1), with blanks allowed between its parts
_BLANKS = r"[ \t]*"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS = re.compile(r"[ \t,]*")
_EXTENSION = re.compile(rf"({_TOKEN}){_BLANKS}")
_PARAMETER = re.compile(
    rf';{_BLANKS}({_TOKEN}){_BLANKS}(?:={_BLANKS}(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"){_BLANKS})?'
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_WINDOW_BITS = re.compile("[89]|1[0-5]")
_BAD_LIST = "it must be a list of 'name; parameter=value'"

_Parameters = dict[str, Optional[str]]


@dataclass(frozen=True, init=False)
class WSDeflate:
    """How messages are compressed (permessage-deflate, RFC 7692).

    Each direction of a connection has a window: the bytes, 2 ** bits, that a message may refer back to. The smaller it is,
    the less memory a connection takes. A number given for a window is a limit that is insisted on: a peer that cannot keep
    it gets no compression. With None, 12 bits are used wherever this side has a say, and any answer of the peer will do.

    :param server_max_window_bits: the window of what the server sends, 8 to 15. A client that gives a number asks the
        server for it
    :param client_max_window_bits: the window of what the client sends, 8 to 15
    :param server_no_context_takeover: whether each message of the server is compressed by itself, without reference
        to earlier ones, so that no memory is kept between messages
    :param client_no_context_takeover: the same for the messages of the client
    :param level: from 0 (none) over 1 (fast) to 9 (small), or -1, the default of the module. `isal.isal_zlib` knows 0 to 3.
        None: 6, and 1 with isal
    :param mem_level: the memory for compressing, 1 to 9. None: 5
    :param min_size: messages shorter than this many bytes are sent as they are, unless `send` is told otherwise
    :param zlib: the module that does the work: the standard library's, `isal.isal_zlib` or `zlib_ng.zlib_ng`. None: isal if
        it is installed, as with ``pip install picows[fast]``, and neither `level` nor `mem_level` is given; else the
        standard library's
    """

    server_max_window_bits: int | None
    client_max_window_bits: int | None
    server_no_context_takeover: bool
    client_no_context_takeover: bool
    level: int
    mem_level: int
    min_size: int
    zlib: ModuleType

    def __init__(
        self,
        *,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        level: int | None = None,
        mem_level: int | None = None,
        min_size: int = 64,
        zlib: ModuleType | None = None,
    ) -> None:
        for name, bits in ((_SERVER_BITS, server_max_window_bits), (_CLIENT_BITS, client_max_window_bits)):
            if bits is not None:
                _check_int(name, bits, _SMALLEST_WINDOW, _LARGEST_WINDOW)
        if level is not None:
            _check_int("level", level, -1, 9)
        if mem_level is not None:
            _check_int("mem_level", mem_level, 1, 9)
        _check_int("min_size", min_size, 0)
        if zlib is None:
            # Who gives one of these has weighed size, time and memory for the standard library's zlib.
            zlib = _quickest() if level is None and mem_level is None else standard_zlib
        for name in ("compressobj", "decompressobj", "error"):
            if not hasattr(zlib, name):
                raise TypeError(f"zlib must be a module like zlib, but {zlib!r} has no {name}")
        if level is None:
            level = 1 if zlib.__name__ == _ISAL else 6
        if mem_level is None:
            mem_level = 5
        values = {
            _SERVER_BITS: server_max_window_bits,
            _CLIENT_BITS: client_max_window_bits,
            _SERVER_FORGETS: bool(server_no_context_takeover),
            _CLIENT_FORGETS: bool(client_no_context_takeover),
            "level": level,
            "mem_level": mem_level,
            "min_size": min_size,
            "zlib": zlib,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        try:
            DeflateKey(zlib, level, _DEFAULT_WINDOW, mem_level).context()
        except MemoryError:
            raise
        except Exception as exc:
            raise ValueError(f"{zlib.__name__} takes no level={level} with mem_level={mem_level}: {exc}") from exc


@functools.cache
def _quickest() -> ModuleType:
    """Isal, unless it is not installed, or would turn on the GIL of a free-threaded interpreter."""
    is_gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    try:
        if is_gil_enabled() or _ISAL in sys.modules:
            return importlib.import_module(_ISAL)
    except ImportError:
        pass
    return standard_zlib


def _check_int(name: str, value: object, least: int, most: int | None = None) -> None:
    expected = f"from {least} to {most}" if most is not None else f"of {least} or more"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int {expected}, not {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be an int {expected}, not {value}")


@dataclass(frozen=True)
class Agreement:
    """What both sides of a connection keep to, as far as this side knows."""

    __slots__ = (
        "client_max_window_bits",
        "client_no_context_takeover",
        "server_max_window_bits",
        "server_no_context_takeover",
        "settings",
    )

    settings: WSDeflate
    server_max_window_bits: int
    client_max_window_bits: int
    server_no_context_takeover: bool
    client_no_context_takeover: bool

    def deflater(self, is_client: bool) -> Deflater:
        """What compresses the messages that this side sends."""
        bits, forgets = self._of_sender(is_client)
        settings = self.settings
        return Deflater(DeflateKey(settings.zlib, settings.level, bits, settings.mem_level), forgets)

    def inflater(self, is_client: bool) -> Inflater:
        """What decompresses the messages that this side receives."""
        bits, forgets = self._of_sender(not is_client)
        return Inflater(self.settings.zlib, bits, forgets)

    def as_settings(self) -> WSDeflate:
        return replace(
            self.settings,
            server_max_window_bits=self.server_max_window_bits,
            client_max_window_bits=self.client_max_window_bits,
            server_no_context_takeover=self.server_no_context_takeover,
            client_no_context_takeover=self.client_no_context_takeover,
        )

    def _of_sender(self, is_client: bool) -> tuple[int, bool]:
        if is_client:
            return self.client_max_window_bits, self.client_no_context_takeover
        return self.server_max_window_bits, self.server_no_context_takeover


def offer(settings: WSDeflate) -> str:
    """The Sec-WebSocket-Extensions by which a client asks for compression.

    It always lets the server choose a window for the client's messages, and asks for nothing that was not set.
    """
    return _write(
        {
            _SERVER_FORGETS: settings.server_no_context_takeover,
            _CLIENT_FORGETS: settings.client_no_context_takeover,
            _SERVER_BITS: settings.server_max_window_bits,
            _CLIENT_BITS: settings.client_max_window_bits or True,
        }
    )


def accept(settings: WSDeflate, header_values: list[str]) -> tuple[str, Agreement] | None:
    """A server's answer to the Sec-WebSocket-Extensions of a client, and what it means.

    The first offer of permessage-deflate that is valid and that `settings` allow is taken; None when there is none.
    Raises ValueError for a header that cannot be read at all.
    """
    for name, pairs in _read(header_values):
        if name != _NAME:
            continue
        try:
            return _accept_one(settings, _checked(pairs))
        except ValueError:
            pass  # declined (section 7.1); the client may offer something else as well
    return None


def _accept_one(settings: WSDeflate, offered: _Parameters) -> tuple[str, Agreement]:
    server_bits = settings.server_max_window_bits or _DEFAULT_WINDOW
    server_bits = min(server_bits, int(offered.get(_SERVER_BITS) or _LARGEST_WINDOW))
    client_bits = _LARGEST_WINDOW
    if _CLIENT_BITS in offered:
        client_bits = settings.client_max_window_bits or _DEFAULT_WINDOW
        client_bits = min(client_bits, int(offered[_CLIENT_BITS] or _LARGEST_WINDOW))
    elif settings.client_max_window_bits not in (None, _LARGEST_WINDOW):
        raise ValueError("this client cannot be told to use a smaller window")
    server_forgets = settings.server_no_context_takeover or _SERVER_FORGETS in offered
    client_forgets = settings.client_no_context_takeover or _CLIENT_FORGETS in offered
    answer = _write(
        {
            _SERVER_FORGETS: server_forgets,
            _CLIENT_FORGETS: client_forgets,
            _SERVER_BITS: server_bits if _SERVER_BITS in offered or server_bits < _LARGEST_WINDOW else None,
            _CLIENT_BITS: client_bits if client_bits < _LARGEST_WINDOW else None,
        }
    )
    return answer, Agreement(settings, server_bits, client_bits, server_forgets, client_forgets)


def check_answer(settings: WSDeflate, header_values: list[str]) -> Agreement | None:
    """What a server's Sec-WebSocket-Extensions means to the client that sent `offer(settings)`; None: no compression.

    Raises ValueError when it does not answer that offer.
    """
    extensions = _read(header_values)
    received = f"received {', '.join(map(repr, header_values))}"
    if not extensions:
        return None
    if len(extensions) > 1 or extensions[0][0] != _NAME:
        raise ValueError(f"{_NAME} is expected, and nothing else: {received}")
    try:
        return _check_one(settings, _checked(extensions[0][1]))
    except ValueError as exc:
        raise ValueError(f"{exc}: {received}") from None


def _check_one(settings: WSDeflate, answered: _Parameters) -> Agreement:
    if settings.server_no_context_takeover and _SERVER_FORGETS not in answered:
        raise ValueError(f"{_SERVER_FORGETS} was asked for and is expected")
    server_bits = int(answered.get(_SERVER_BITS) or _LARGEST_WINDOW)
    if settings.server_max_window_bits is not None and server_bits > settings.server_max_window_bits:
        raise ValueError(f"{_SERVER_BITS} of {settings.server_max_window_bits} or less is expected")
    client_bits = settings.client_max_window_bits or _DEFAULT_WINDOW
    if _CLIENT_BITS in answered:
        value = answered[_CLIENT_BITS]
        if value is None:
            raise ValueError(f"{_CLIENT_BITS} needs a value in an answer")
        if settings.client_max_window_bits is not None and int(value) > client_bits:
            raise ValueError(f"{_CLIENT_BITS} of {client_bits} or less is expected")
        client_bits = min(client_bits, int(value))
    return Agreement(
        settings,
        server_bits,
        client_bits,
        _SERVER_FORGETS in answered,
        # Of this the offer already said that it holds, whatever the answer (section 7.1.1.2).
        settings.client_no_context_takeover or _CLIENT_FORGETS in answered,
    )


def _write(parameters: dict[str, int | None]) -> str:
    """The extension with these parameters; True stands for one without a value, None and False for one that is left out."""
    present = [name if value is True else f"{name}={value}" for name, value in parameters.items() if value]
    return "; ".join([_NAME, *present])


def _read(header_values: list[str]) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """The extensions in the lines of a header, each with its parameters, in order."""
    extensions = []
    for line in header_values:
        at = _skip(line, 0)
        while at < len(line):
            extension = _EXTENSION.match(line, at)
            if not extension:
                _fail(line, at)
            at = extension.end()
            pairs: list[tuple[str, str | None]] = []
            while True:
                parameter = _PARAMETER.match(line, at)
                if not parameter:
                    break
                name, value, quoted = parameter.groups()
                if quoted is not None:
                    value = _QUOTED_PAIR.sub(r"\1", quoted)
                    if not re.fullmatch(_TOKEN, value):
                        _fail(line, parameter.start(3))
                pairs.append((name, value))
                at = parameter.end()
            if at < len(line) and line[at] != ",":
                _fail(line, at)
            extensions.append((extension[1], pairs))
            at = _skip(line, at)
    return extensions


def _skip(line: str, at: int) -> int:
    separators = _SEPARATORS.match(line, at)
    return separators.end() if separators else at


def _fail(line: str, at: int) -> NoReturn:
    raise ValueError(f"{_BAD_LIST}: received {line[at : at + 40]!r} at position {at} of {line[:80]!r}")


def _checked(pairs: list[tuple[str, str | None]]) -> _Parameters:
    """The parameters by their names. Raises ValueError for what section 7.1 rules out in offers and answers alike."""
    parameters: _Parameters = {}
    for name, value in pairs:
        if name in parameters:
            raise ValueError(f"{name} must stand there once only")
        if name in (_SERVER_FORGETS, _CLIENT_FORGETS):
            if value is not None:
                raise ValueError(f"{name} takes no value")
        elif name not in (_SERVER_BITS, _CLIENT_BITS):
            raise ValueError(f"{name} is no parameter of {_NAME}")
        elif not (_WINDOW_BITS.fullmatch(value) if value is not None else name == _CLIENT_BITS):
            raise ValueError(f"{name} must be a number from {_SMALLEST_WINDOW} to {_LARGEST_WINDOW}")
        parameters[name] = value
    return parameters


class DeflateKey(NamedTuple):
    """All that the form of a compressed message depends on."""

    zlib: ModuleType
    level: int
    window_bits: int
    mem_level: int

    def context(self) -> Any:
        """A new compressor."""
        # The smallest window zlib compresses for is 9 bits; Deflater sees to it that 8 bits are enough.
        return self.zlib.compressobj(self.level, standard_zlib.DEFLATED, -max(9, self.window_bits), self.mem_level)


class Deflater:
    """Compresses the messages of one direction of a connection; its memory is taken on first use.

    :param key: see `DeflateKey`; a message that `compress_fresh` made suits each peer with an equal one
    :param forgets: whether each message stands for itself (no_context_takeover)
    """

    __slots__ = ("_context", "_forgets", "key")

    def __init__(self, key: DeflateKey, forgets: bool) -> None:
        self.key: DeflateKey = key
        self._forgets = forgets
        self._context: Any = None

    def compress(self, data: Buffer, fin: bool = True) -> bytes:
        """The payload of the next frame of a message, of the last one when `fin` is set."""
        size = memoryview(data).nbytes
        # What was compressed but could not be sent, for an error came, must not be referred to.
        context, self._context = self._context, None
        if not size:
            payload = _EMPTY + _TAIL if fin else b""  # behind a flush, as every payload ends, this is valid
        else:
            context = context or self.key.context()
            if self.key.window_bits > _SMALLEST_WINDOW:
                payload = context.compress(data) + context.flush(standard_zlib.Z_SYNC_FLUSH)
            else:
                payload = _compress_in_blocks(context, memoryview(data).cast("B"))
        if not (fin and self._forgets):
            self._context = context
        return payload[: -len(_TAIL)] if fin else payload

    def forget(self) -> None:
        """Do not refer to earlier messages, for the peer has received one that was not compressed here."""
        self._context = None


def _compress_in_blocks(context: Any, view: memoryview) -> bytes:
    """For the smallest window: a full flush forgets all before it, so nothing refers back further than a block is long."""
    size = 1 << _SMALLEST_WINDOW
    blocks = (view[at : at + size] for at in range(0, len(view), size))
    return b"".join([context.compress(block) + context.flush(standard_zlib.Z_FULL_FLUSH) for block in blocks])


def compress_fresh(key: DeflateKey, data: Buffer) -> bytes:
    """The payload of a whole message that refers to none before it, for every peer whose `Deflater.key` is this one.

    Call `Deflater.forget` for each of them.
    """
    return Deflater(key, True).compress(data)


class Inflater:
    """Decompresses the messages of one direction of a connection; its memory is taken on first use.

    :param zlib: the module that does it
    :param window_bits: how far back messages may refer
    :param forgets: whether each message stands for itself (no_context_takeover)
    """

    __slots__ = ("_context", "_final_blocks", "_forgets", "_unfinished", "_window_bits", "_zlib")

    def __init__(self, zlib: ModuleType, window_bits: int, forgets: bool) -> None:
        self._zlib = zlib
        self._window_bits = window_bits
        self._forgets = forgets
        self._context: Any = None
        self._unfinished = False  # whether something of the message lies behind the last final block
        self._final_blocks = 0  # of the message

    def inflate(self, data: Buffer, fin: bool, max_size: int) -> bytes:
        """The data in the payload of the next frame of a message, of the last one when `fin` is set.

        Raises WSProtocolError: 1009 once there are over `max_size` bytes (0 or more), 1007 for what is no compressed data,
        1008 for a message of very many streams. After that this cannot be used any more.
        """
        whole: BytesIO | None = None  # if there is more than one piece; gives its content away uncopied
        first = b""
        size = 0
        for step in _steps(memoryview(data)):
            rest: Buffer | None = step
            while rest is not None:
                limit = min(_OUTPUT_STEP, max_size - size + 1)
                piece = self._decompress(rest, limit)
                size += len(piece)
                if size > max_size:
                    raise WSProtocolError(1009, f"a compressed frame has over {max_size} bytes when decompressed")
                if size == len(piece):
                    first = piece
                elif piece:
                    if whole is None:
                        whole = BytesIO()
                        whole.write(first)
                    whole.write(piece)
                rest = self._rest(len(piece) == limit)
        if fin:
            self._finish()
        return first if whole is None else whole.getvalue()

    def _decompress(self, data: Buffer, limit: int) -> bytes:
        if self._context is None:
            self._context = self._zlib.decompressobj(-self._window_bits)
        self._unfinished = True
        try:
            piece: bytes = self._context.decompress(data, limit)
        except self._zlib.error as exc:
            raise WSProtocolError(1007, f"a compressed message cannot be decompressed: {exc}") from None
        return piece

    def _rest(self, full: bool) -> bytes | None:
        """What has not been decompressed yet; None once that is all. `full`: more may come out even of nothing."""
        context = self._context
        if not context.eof:
            return context.unconsumed_tail if full else None
        # A final block (section 7.2.3.4): what follows, if anything does, begins a new stream.
        self._context = None
        self._unfinished = False
        self._final_blocks += 1
        if self._final_blocks > _MAX_FINAL_BLOCKS:
            raise WSProtocolError(1008, f"a compressed message has over {_MAX_FINAL_BLOCKS} final blocks")
        return context.unused_data or None

    def _finish(self) -> None:
        """Take the message to its end: append what is not sent of it (section 7.2.2)."""
        if self._unfinished:
            if self._decompress(_TAIL, 1) or self._context.unused_data:
                raise WSProtocolError(1007, "a compressed message ends within a block")
            if self._context.eof:  # the empty block that ends a message may be a final one
                self._context = None
        self._unfinished = False
        self._final_blocks = 0
        if self._forgets:
            self._context = None


def _steps(view: memoryview) -> Iterable[memoryview]:
    if view.nbytes <= _INPUT_STEP:
        return (view,) if view.nbytes else ()
    view = view.cast("B")
    return (view[at : at + _INPUT_STEP] for at in range(0, len(view), _INPUT_STEP))
