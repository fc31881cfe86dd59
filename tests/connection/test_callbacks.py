"""What callbacks may do: raise, end the connection, use others, run a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from picows import WSCloseCode, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSProtocolError, WSTransport
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    all_at_once,
    close_state,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import (
    BINARY,
    CLOSE,
    PONG,
    REQUEST,
    ROLES,
    TEXT,
    Peer,
    close_code,
    close_payload,
    raw_client,
    serve_streams,
    stream,
    upgrade_response,
)

over_roles = pytest.mark.parametrize("role", ROLES)
over_sides = pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])


class Boom(Exception):
    pass


class Raising(Echo):
    """Raises once, from the callback that is named."""

    def __init__(self, callback: str, error: Exception) -> None:
        super().__init__()
        self.callback, self.error = callback, error

    def _maybe(self, callback: str) -> None:
        if callback == self.callback:
            self.callback = ""
            raise self.error

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self._maybe("on_ws_connected")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.get_payload_as_bytes() == b"raise":
            self._maybe("on_ws_frame")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self._maybe("on_ws_disconnected")


async def check_outcome(role: str, listener: Recorder, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The client's waiter is told, and nobody else; the server's log is."""
    if role == "client":
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                await listener.transport.wait_disconnected()
            assert caught.value is error
    else:
        await listener.transport.wait_disconnected()
        if isinstance(error, WSProtocolError):
            # The listener's judgement of what came; only that it could not be sent is a fault of its own.
            logged = [record for record in caplog.records if "WSProtocolError" in record.getMessage()]
            assert [record.levelno for record in logged] == [logging.DEBUG] + [logging.ERROR] * (error.code == 1005)
            assert not [record for record in caplog.records if record.exc_info]
            return
        logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
        assert len(logged) == 1
        assert logged[0].levelno == logging.ERROR
        assert logged[0].name.startswith("picows.server")
        # The traceback leads to the user's line.
        assert "_maybe" in (caplog.text)


ERRORS = [
    (Boom("secret"), 1011, None),
    (WSProtocolError(3001, "the reason"), 3001, b"the reason"),
    (WSProtocolError(WSCloseCode.POLICY_VIOLATION, ""), 1008, b""),
    # What cannot be sent as it is does not end as another fault.
    (WSProtocolError(1005, "may not travel"), 1011, None),
    (WSProtocolError(1008, "é" * 100), 1008, ("é" * 61).encode()),
]


@over_roles
@pytest.mark.parametrize(
    ("error", "code", "reason"), ERRORS, ids=["exception", "private-code", "no-reason", "bad-code", "long-reason"]
)
@pytest.mark.parametrize("callback", ["on_ws_connected", "on_ws_frame"])
def test_an_exception_closes_the_connection(
    net: Network,
    role: str,
    callback: str,
    error: Exception,
    code: int,
    reason: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "picows")

    async def test() -> None:
        async with ROLES[role](net, lambda: Raising(callback, error)) as (peer, listener):
            if callback == "on_ws_frame":
                peer.write(b"".join(peer.encode(TEXT, word) for word in (b"before", b"raise", b"behind", b"behind")))
            *answers, close = await peer.receive_all()
            # What was sent before the exception leaves before the CLOSE.
            assert [answer.payload for answer in answers] == [b"before", b"raise"] * (callback == "on_ws_frame")
            assert close_code(close) == code
            assert b"secret" not in close.payload
            if reason is not None:
                assert close.payload[2:] == reason
            await peer.close()
            await listener.disconnected.wait()
            assert [frame.payload for frame in listener.rest()] == [answer.payload for answer in answers]
            assert listener.calls == ["connected", "disconnected"]
            await check_outcome(role, listener, error, caplog)

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_an_exception_in_a_burst(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    error = Boom()

    async def test() -> None:
        async with ROLES[role](net, lambda: Raising("on_ws_frame", error)) as (peer, listener):
            words = [b"%d" % i for i in range(1000)]
            peer.write(b"".join(peer.encode(TEXT, word) for word in [*words, b"raise", *words]))
            *answers, close = await peer.receive_all()
            assert [answer.payload for answer in answers] == [*words, b"raise"]
            assert close == Received(CLOSE, close_payload(1011))
            await peer.close()
            await listener.disconnected.wait()
            await check_outcome(role, listener, error, caplog)

    net.run(test())


@over_roles
def test_an_exception_when_it_is_over(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    error = Boom()

    async def test() -> None:
        async with ROLES[role](net, lambda: Raising("on_ws_disconnected", error)) as (peer, listener):
            await peer.close()
            await listener.disconnected.wait()
            await check_outcome(role, listener, error, caplog)

    net.run(test())


@over_roles
def test_an_exception_may_be_logged_only(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with ROLES[role](
            net, lambda: Raising("on_ws_frame", Boom("told")), disconnect_on_exception=False
        ) as (peer, listener):
            peer.write(b"".join(peer.encode(TEXT, word) for word in (b"before", b"raise", b"behind")))
            for word in (b"before", b"raise", b"behind"):
                assert await peer.receive() == Received(TEXT, word)
            await peer.close()
            await listener.transport.wait_disconnected()
            logged = [record for record in caplog.records if record.exc_info]
            assert [record.exc_info[1].args for record in logged] == [("told",)]  # type: ignore[index, union-attr]
            assert "_maybe" in caplog.text

    net.run(test())


@over_roles
def test_an_exception_behind_the_own_disconnect(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, but nobody may say that the connection stays open."""

    class Leaver(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.disconnect()
            raise Boom("behind")

    async def test() -> None:
        async with ROLES[role](net, Leaver, disconnect_on_exception=False) as (peer, listener):
            peer.send(TEXT, b"go")
            assert await peer.receive_all() == []
            await peer.close()
            if role == "client":
                with pytest.raises(Boom):
                    await listener.transport.wait_disconnected()
            else:
                await listener.transport.wait_disconnected()
                (record,) = [record for record in caplog.records if record.exc_info]
                assert record.exc_info[1].args == ("behind",)  # type: ignore[index, union-attr]
            assert "stays open" not in caplog.text

    net.run(test())


@over_roles
def test_only_exceptions_from_on_ws_frame_may_be_logged_only(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](
            net, lambda: Raising("on_ws_connected", Boom()), disconnect_on_exception=False
        ) as (peer, listener):
            (close,) = await peer.receive_all()
            assert close_code(close) == 1011
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_roles
def test_a_chosen_close_code_is_sent_in_any_case(net: Network, role: str) -> None:
    """Who raises a WSProtocolError wants to disconnect, whatever is done about other exceptions."""

    async def test() -> None:
        error = WSProtocolError(4001, "chosen")
        async with ROLES[role](
            net, lambda: Raising("on_ws_frame", error), disconnect_on_exception=False
        ) as (peer, listener):
            peer.write(b"".join(peer.encode(TEXT, word) for word in (b"raise", b"behind")))
            close = Received(CLOSE, close_payload(4001, b"chosen"))
            assert await peer.receive_all() == [Received(TEXT, b"raise"), close]
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_roles
def test_the_first_exception_counts(net: Network, role: str) -> None:
    first = Boom("first")

    class Twice(Raising):
        def on_ws_disconnected(self, transport: WSTransport) -> None:
            super().on_ws_disconnected(transport)
            raise Boom("second")

    async def test() -> None:
        async with ROLES[role](net, lambda: Twice("on_ws_frame", first)) as (peer, listener):
            peer.send(TEXT, b"raise")
            await peer.receive_all()
            await peer.close()
            await listener.disconnected.wait()
            if role == "client":
                with pytest.raises(Boom) as caught:
                    await listener.transport.wait_disconnected()
                assert caught.value is first
            else:
                await listener.transport.wait_disconnected()

    net.run(test())


@over_sides
def test_an_exception_after_the_own_close(net: Network, side: int) -> None:
    """The CLOSE that was sent stays the only one."""

    class Closing(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send_close(1000, b"own")
            raise Boom

    async def test() -> None:
        factories = [Recorder, Recorder]
        factories[side] = Closing
        async with net.pair(*factories) as pair:
            one, other = pair[side], pair[1 - side]
            other.transport.send(WSMsgType.TEXT, b"")
            await other.disconnected.wait()
            assert other.rest() == [Received(CLOSE, close_payload(1000, b"own"))]
            await one.disconnected.wait()
            assert close_state(one.transport) == ((1000, "own"), None, False)

    net.run(test())


# -- ending the connection from inside --


@over_tcp_and_tls
def test_ending_it_in_the_middle_of_a_burst(net: Network) -> None:
    class Ending(Recorder):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.how = how

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            view = frame.get_payload_as_memoryview()
            if view == b"end":
                transport.send(WSMsgType.TEXT, b"answer")
                if self.how == "close":
                    transport.send_close(1000)
                transport.disconnect(graceful=self.how != "abort")
                assert self.calls == ["connected"]
            # The frame is what it was.
            assert view == frame.get_payload_as_bytes()
            super().on_ws_frame(transport, frame)

    async def test(role: str, how: str) -> None:
        async with ROLES[role](net, lambda: Ending(how)) as (peer, listener):
            peer.write(b"".join(peer.encode(TEXT, word) for word in (b"before", b"end", b"behind", b"behind")))
            if how == "abort":
                await peer.lost()
            else:
                answer, *close = await peer.receive_all()
                assert answer.payload == b"answer"
                assert close == [Received(CLOSE, close_payload(1000))] * (how == "close")
            await peer.close()
            await listener.transport.wait_disconnected()
            assert listener.calls == ["connected", "disconnected"]
            assert (await listener.take(2))[1].payload == b"end"

    net.run(all_at_once(*(test(role, how) for role in ROLES for how in ("disconnect", "abort", "close"))))


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize("graceful", [True, False])
def test_ending_it_at_once(net: Network, role: str, graceful: bool) -> None:
    class Brief(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            transport.send(WSMsgType.TEXT, b"hello and goodbye")
            transport.disconnect(graceful)

    async def test() -> None:
        async with ROLES[role](net, Brief) as (peer, listener):
            if graceful:
                assert [frame.payload for frame in await peer.receive_all()] == [b"hello and goodbye"]
            else:
                await peer.lost()
            await peer.close()
            await listener.transport.wait_disconnected()
            assert listener.calls == ["connected", "disconnected"]

    net.run(test())


# -- other connections, and loops, from inside --


@over_tcp_and_tls
def test_answering_on_other_connections(net: Network) -> None:
    """A room: whatever one says goes to all, from inside the callback of one."""
    room: list[Recorder] = []

    class Member(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            room.append(self)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            for member in room:
                member.transport.send(frame.msg_type, frame)

    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(net.serve(lambda request: Member()))
            clients = [await net.connect(Recorder, url) for _ in range(5)]
            for i, client in enumerate(clients):
                for j in range(20):
                    client.transport.send(WSMsgType.BINARY, b"%d %d " % (i, j) + bytes(1000 * j))
            for client in clients:
                said = [frame.payload.rstrip(b"\0").split() for frame in await client.take(100)]
                # All was heard, and from each in order.
                for i in range(5):
                    assert [int(j) for who, j in said if int(who) == i] == list(range(20))
            for client in clients:
                client.transport.disconnect()
                await client.transport.wait_disconnected()
            for member in room:
                await member.transport.wait_disconnected()

    net.run(test())


@over_tcp_and_tls
def test_ending_other_connections(net: Network) -> None:
    members: list[Recorder] = []

    class Member(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            for i, other in enumerate(members[:-1]):
                other.transport.disconnect(graceful=i % 2 == 0)
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        def factory(request: object) -> Recorder:
            members.append(Member())
            return members[-1]

        async with net.serve(factory) as url:
            clients = [await net.connect(Recorder, url) for _ in range(5)]
            clients[-1].transport.send(WSMsgType.TEXT, b"one")
            clients[-1].transport.send(WSMsgType.TEXT, b"two")
            assert [await members[-1].payload() for _ in range(2)] == [b"one", b"two"]
            for client in clients[:-1]:
                await client.disconnected.wait()
            clients[-1].transport.disconnect()
            for listener in [*clients, *members]:
                await listener.transport.wait_disconnected()

    net.run(test())


@contextlib.contextmanager
def no_running_loop() -> Iterator[None]:
    """Lets a loop run inside another, as nest-asyncio does it."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)


@over_every_network
def test_a_loop_inside_a_callback(net: Network) -> None:
    """It serves connections on the same thread, while the frame outside and its neighbours stay what they are."""

    class Nesting(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            before = frame.get_payload_as_bytes()
            view = frame.get_payload_as_memoryview()
            if before == b"nest":
                with no_running_loop():
                    net.run(inner())
            assert view == before == frame.get_payload_as_bytes()
            super().on_ws_frame(transport, frame)

    async def inner() -> None:
        async with net.pair(server=Echo) as (client, _):
            for size in (10, 1000, 100_000, 600_000):
                client.transport.send(WSMsgType.BINARY, b"\xee" * size)
                assert await client.payload() == b"\xee" * size

    async def test() -> None:
        words = [b"before", b"nest", b"behind", b"nest", bytes(300_000), b"last"]
        async with raw_client(net, Nesting) as (peer, listener):
            peer.write(b"".join(peer.encode(BINARY, word) for word in words))
            assert [await listener.payload() for _ in words] == words

    net.run(test())


def run_some_of(loop: Any) -> None:
    for _ in range(20):
        loop.call_soon(int)  # so that it does not wait for anything to happen
        loop._run_once()
    for _ in range(1000):
        loop.call_soon(int)  # instead of what the outer one had in view


def test_the_same_loop_inside_a_callback(net: Network) -> None:
    """Frames of another connection come in and go out while one is being delivered."""

    class Nesting(Echo):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            before, view = frame.get_payload_as_bytes(), frame.get_payload_as_memoryview()
            run_some_of(asyncio.get_running_loop())
            assert view == before == frame.get_payload_as_bytes()
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        words = [b"word %d " % i + b"." * i for i in range(30)]
        async with raw_client(net, Nesting) as (nesting, outer), raw_client(net, Echo) as (other, inner):

            async def drip() -> None:
                for byte in b"".join(other.encode(BINARY, word) for word in words):
                    other.write(bytes([byte]))
                    await asyncio.sleep(0)

            dripping = asyncio.ensure_future(drip())
            nesting.write(b"".join(nesting.encode(BINARY, word) for word in words))
            for peer, listener in ((nesting, outer), (other, inner)):
                assert [await listener.payload() for _ in words] == words
                assert [(await peer.receive()).payload for _ in words] == words
            await dripping

    net.run(test())


def run_again(loop: Any) -> None:
    """Run asyncio's loop inside a callback of the connection that it reads just now."""
    for key in loop._selector.get_map().values():
        for handle in filter(None, key.data):
            # That which reads this connection is running, and cannot be entered twice in one context.
            handle._context = contextvars.copy_context()
    run_some_of(loop)


@over_roles
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
def test_the_same_loop_inside_the_listener_factory(net: Network, role: str, ends: bool) -> None:
    """What is read meanwhile are frames, for later; and a connection that ends meanwhile is not opened."""
    listeners: list[Recorder] = []

    def factory(*_: object) -> Recorder:
        run_again(asyncio.get_running_loop())
        listeners.append(Recorder())
        return listeners[-1]

    words = [b"%d" % i for i in range(50)]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, masks=False)
        peer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        await go_on(peer)

    async def go_on(peer: Peer) -> None:
        if ends:
            peer.writer.close()
            return
        for word in words:
            peer.send(TEXT, word)
            await asyncio.sleep(0)
        await peer.lost()
        await peer.close()

    async def check() -> None:
        while not listeners:
            await asyncio.sleep(0)  # this may run inside of the factory
        assert len(listeners) == 1
        if ends:
            assert listeners[0].calls in ([], ["connected", "disconnected"])
        else:
            assert [await listeners[0].payload() for _ in words] == words
            await cut(listeners[0])

    async def test() -> None:
        if role == "client":
            async with serve_streams(net, handle) as url:
                with contextlib.suppress(ConnectionError, WSHandshakeError) if ends else contextlib.nullcontext():
                    await net.connect(factory, url)
                await check()
        else:
            async with net.serve(factory) as url, stream(net, url) as peer:
                peer.write(REQUEST)
                going_on = asyncio.ensure_future(go_on(peer))
                await check()
                await going_on

    net.run(test())


def test_the_same_loop_inside_on_ws_connected(net: Network) -> None:
    """The server ends the stream meanwhile: the upgrade was over before, and ws_connect returns."""

    class Nesting(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            run_again(asyncio.get_running_loop())

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        writer.close()

    async def test() -> None:
        async with serve_streams(net, handle) as url:
            listener = await net.connect(Nesting, url)
            await listener.transport.wait_disconnected()
            assert listener.calls == ["connected", "disconnected"]

    net.run(test())


@over_both_loops
def test_connecting_from_a_callback(net: Network) -> None:
    class Relay(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.task = asyncio.ensure_future(self.relay(transport, frame.get_payload_as_bytes()))

        async def relay(self, transport: WSTransport, payload: bytes) -> None:
            client = await net.connect(Recorder, self.url)
            client.transport.send(WSMsgType.TEXT, payload)
            transport.send(WSMsgType.TEXT, await client.payload())
            client.transport.disconnect()
            await client.transport.wait_disconnected()

        url = ""

    async def test() -> None:
        async with net.serve(lambda request: Echo()) as Relay.url, net.pair(server=Relay) as (client, server):
            client.transport.send(WSMsgType.TEXT, b"via")
            assert await client.payload() == b"via"
            await server.task

    net.run(test())


# -- what else a listener may be --


@over_both_loops
def test_a_listener_need_not_override_anything(net: Network) -> None:
    class Bare(WSListener):
        pass

    async def test() -> None:
        made: list[Any] = []

        def factory(request: object) -> Any:
            made.append(WSListener() if len(made) % 2 else Bare())
            return made[-1]

        async with net.serve(factory) as url:
            for _ in range(4):
                async with stream(net, url) as peer:
                    peer.write(REQUEST)
                    await peer.reader.readuntil(b"\r\n\r\n")
                    peer.send(TEXT, b"ignored")
                    peer.send(9, b"answered")
                    assert await peer.receive() == Received(PONG, b"answered")

    net.run(test())


def test_callbacks_may_be_replaced(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            seen: list[bytes] = []
            peer.send(TEXT, b"recorded")
            await listener.payload()

            def collect(transport: WSTransport, frame: WSFrame) -> None:
                seen.append(frame.get_payload_as_bytes())
                listener.frames.put_nowait(Received(0, b"collected"))

            listener.on_ws_frame = collect
            peer.send(TEXT, b"replaced")
            assert await listener.payload() == b"collected"
            assert seen == [b"replaced"]

    net.run(test())
