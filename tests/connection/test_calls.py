"""Wrong calls of the compiled classes: they raise what says which argument is wrong, and nothing is sent."""

from __future__ import annotations

import inspect
import mmap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import picows._messages
import picows.picows
import picows.upgrade._fields
from picows import WSCloseHandshake, WSCloseInfo, WSFrame, WSListener, WSMsgType, WSTransport, ws_broadcast
from tests.connection.networks import Network, Received, Recorder, over_tcp_and_tls
from tests.connection.peers import BINARY, PONG, ROLES, TEXT, raw_client

over_roles = pytest.mark.parametrize("role", ROLES)


class Index:
    """An integer that is no `int`, as NumPy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def in_place(transport: WSTransport, msg_type: Any, message: bytes) -> Any:
    return transport.send_reuse_external_bytearray(msg_type, bytearray(14) + message, 14)


SENDERS: dict[str, Callable[[WSTransport, Any, bytes], Any]] = {
    "send": lambda transport, msg_type, message: transport.send(msg_type, message),
    "by_name": lambda transport, msg_type, message: transport.send(message=message, msg_type=msg_type),
    "in_place": in_place,
    "broadcast": lambda transport, msg_type, message: ws_broadcast([transport], msg_type, message),
}
over_senders = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)


@over_roles
@over_senders
def test_types_of_message(net: Network, role: str, send: Callable[..., Any]) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            for wrong in (1.5, 1.0, "1", b"\1", None, [1], WSFrame):
                with pytest.raises(TypeError, match=r"^msg_type is "):
                    send(transport, wrong, b"message")
            for wrong in (-1, 3, 7, 11, 15, 16, 1 << 15, 2**30, 2**31, 2**32 + 1, -(2**32) + 1, 2**64 + 1, -(2**70), Index(16)):
                with pytest.raises(ValueError, match=r"^msg_type is .*, expected"):
                    send(transport, wrong, b"message")
            with pytest.raises(ValueError, match="CLOSE" if send in (in_place, SENDERS["broadcast"]) else "close_code is 28005"):
                send(transport, WSMsgType.CLOSE, b"message")
            for right in (WSMsgType.BINARY, 2, Index(2)):
                assert send(transport, right, b"message")
            assert send(transport, WSMsgType.CONTINUATION, b"")
            expected = [Received(BINARY, b"message")] * 3 + [Received(0, b"")]
            assert [await peer.receive() for _ in expected] == expected

    net.run(test())


@pytest.mark.parametrize("msg_offset", [1.5, "14", None, True, -1, 2**70, 13, 22])
def test_the_offset_in_a_bytearray(net: Network, msg_offset: Any) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            error = ValueError if type(msg_offset) is int else TypeError
            with pytest.raises(error, match=r"^msg_offset "):
                listener.transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(21), msg_offset)
            listener.transport.send_pong(b"next")
            assert await peer.receive() == Received(PONG, b"next")

    net.run(test())


def released(size: int) -> memoryview:
    view = memoryview(bytes(size))
    view.release()
    return view


def closed(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    memory.close()
    return memory


@over_tcp_and_tls
@over_roles
def test_buffers_that_cannot_be_read(net: Network, role: str) -> None:
    """NumPy's arrays refuse by a ValueError, as a released memoryview and a closed mmap do."""

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            for size in (100, 100_000):
                for message in (released(size), closed(size), memoryview(bytes(size))[::2]):
                    for call in (
                        lambda message: transport.send(WSMsgType.BINARY, message),
                        lambda message: ws_broadcast([transport], WSMsgType.BINARY, message),
                        transport.send_ping,
                        transport.send_pong,
                    ):
                        with pytest.raises(TypeError, match=rf"^message, a {type(message).__name__}, cannot be read .*: \w"):
                            call(message)
                for message in (released(size), closed(size)):
                    with pytest.raises(TypeError, match=rf"^close_message, a {type(message).__name__}, cannot be read"):
                        transport.send_close(1000, message)
            transport.send_pong(b"next")
            assert await peer.receive() == Received(PONG, b"next")

    net.run(test())


SECONDS = [("x", TypeError), (True, TypeError), (b"1", TypeError), (0, ValueError), (-1.5, ValueError)]
SECONDS += [(float("nan"), ValueError), (float("inf"), ValueError)]
ROUNDS = [(1.5, TypeError), ("1", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError), (2**70, ValueError)]


def test_arguments_of_what_is_awaited(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            for seconds, error in SECONDS:
                with pytest.raises(error, match=r"^timeout must be"):
                    await transport.close(timeout=seconds)  # type: ignore[arg-type]
            for rounds, error in ROUNDS:
                with pytest.raises(error, match=r"^rounds must be"):
                    await transport.measure_roundtrip_time(rounds)  # type: ignore[arg-type]
            assert await transport.measure_roundtrip_time(0) == []
            for code in ("1000", 1000.0, None):
                with pytest.raises(TypeError, match=r"^close_code is of type"):
                    await transport.close(code)  # type: ignore[arg-type]
            assert not transport.is_close_frame_sent
            transport.send_pong(b"next")
            assert await peer.receive() == Received(PONG, b"next")

    net.run(test())


@pytest.mark.parametrize("transports", [None, 5, WSTransport])
def test_a_broadcast_to_what_is_no_collection(transports: Any) -> None:
    with pytest.raises(TypeError, match=r"^transports is of type"):
        ws_broadcast(transports, WSMsgType.TEXT, b"")


# What a compiled class or function takes has a layout of its own, and anything else in its place would be read as if it had it.

MODULES = [picows._messages, picows.picows, picows.upgrade._fields]
COMPILED = (types.BuiltinFunctionType, type(picows.WSTransport.close))
HEAP_TYPE = 1 << 9  # a class written in Python
# A class knows its own `self` by these.
OF_EVERY_CLASS = {"__class__", "__doc__", "__module__", "__new__", "__init_subclass__", "__class_getitem__"}


def functions(module: types.ModuleType) -> Iterator[Any]:
    for member in vars(module).values():
        if isinstance(member, COMPILED) and member.__module__ == module.__name__:
            yield member


def classes(module: types.ModuleType) -> Iterator[type]:
    for member in vars(module).values():
        if isinstance(member, type) and member.__module__ == module.__name__ and not member.__flags__ & HEAP_TYPE:
            yield member


def finish(result: Any) -> None:
    """A coroutine has done nothing yet."""
    if inspect.iscoroutine(result) or hasattr(result, "cr_await"):
        try:
            result.send(None)
        finally:
            result.close()


def call_unbound(member: Any, stranger: Any, arguments: int) -> Any:
    if callable(member):
        return member(stranger, *[b"argument" * 5] * arguments)
    return member.__get__(stranger)


STRANGERS = [None, 5, 1.5, "text" * 10, b"bytes" * 10, bytearray(40), object(), {}, WSListener(), WSFrame()]
# What wrong arguments may end in; an OverflowError would name a C type. RuntimeError: a frame of no callback.
REFUSALS = (TypeError, ValueError, RuntimeError, BufferError)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_method_checks_its_self(module: types.ModuleType) -> None:
    checked = 0
    for cls in classes(module):
        for name, member in vars(cls).items():
            if name in OF_EVERY_CLASS or not hasattr(type(member), "__get__") or isinstance(member, staticmethod):
                continue
            for stranger in [*STRANGERS, WSTransport.__new__(WSTransport)]:
                if isinstance(stranger, cls):
                    continue
                for count in range(4):
                    with pytest.raises(TypeError):
                        finish(call_unbound(member, stranger, count))
                checked += 1
    assert checked or module is not picows.picows


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_function_checks_its_arguments(module: types.ModuleType) -> None:
    for function in functions(module):
        for stranger in STRANGERS:
            for count in range(6):
                try:
                    finish(function(*[stranger] * count))
                except (*REFUSALS, OverflowError):
                    pass


def test_a_transport_that_nobody_has_connected() -> None:
    with pytest.raises(TypeError, match="ws_connect and ws_create_server"):
        WSTransport()
    transport = WSTransport.__new__(WSTransport)
    for call in (lambda: transport.send(WSMsgType.TEXT, b"x"), transport.send_close, transport.disconnect, transport.flush):
        with pytest.raises(RuntimeError, match="without a connection"):
            call()
    assert transport.subprotocol is None


def test_a_listener_is_given_none() -> None:
    listener = WSListener()
    with pytest.raises(TypeError, match=r"^transport is None"):
        listener.send_user_specific_ping(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^frame is None"):
        listener.is_user_specific_pong(None)  # type: ignore[arg-type]


def test_every_argument_of_every_method(net: Network) -> None:
    """On a live connection, each argument is in turn replaced by every stranger; the worst that comes of it is a refusal."""

    class Caller(Recorder):
        refusals = 0

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            for subject in (frame, WSListener(), WSCloseInfo(1000, None), WSCloseHandshake(None, None, False), transport):
                self.call_all(subject, {"transport": transport, "frame": frame})
            super().on_ws_frame(transport, frame)

        def call_all(self, subject: Any, right: dict[str, Any]) -> None:
            for name, member in vars(type(subject)).items():
                if not callable(member) or name in OF_EVERY_CLASS or name == "disconnect":
                    continue
                try:
                    parameters = list(inspect.signature(member).parameters)[1:]
                except ValueError:
                    continue
                for position, _ in enumerate(parameters):
                    for stranger in STRANGERS:
                        arguments = [right.get(parameter, b"") for parameter in parameters]
                        arguments[position] = stranger
                        try:
                            finish(getattr(subject, name)(*arguments))
                        except REFUSALS:
                            self.refusals += 1

    async def test() -> None:
        async with raw_client(net, Caller) as (peer, listener):
            peer.send(TEXT, b"go")
            assert await listener.take(1) == [Received(TEXT, b"go")]
            assert listener.refusals > 100
            # What the strangers were good for was sent.
            listener.transport.send_close(1000, b"next")
            listener.transport.disconnect()
            *_, last = await peer.receive_all()
            assert last.payload == b"\x03\xe8next"

    net.run(test())
