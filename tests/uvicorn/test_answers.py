"""What an application is told of a request, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
from typing import Any

import pytest

from tests.connection.networks import Network, over_tcp_and_tls
from tests.connection.peers import TEXT, encode, stream
from tests.uvicorn.serving import (
    ACCEPT,
    CONNECT,
    HEAD,
    accepted,
    answer_of,
    asking,
    head_of,
    over_both_http_classes,
    serving,
    text,
)

START = "websocket.http.response.start"
BODY = "websocket.http.response.body"


@over_both_http_classes
@over_tcp_and_tls
def test_an_application_knows_the_request(net: Network, http: str) -> None:
    async def test() -> None:
        headers = b"X-One: caf\xc3\xa9\r\nX-Two: \xff\r\nx-one: again\r\n"
        headers += b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n"
        async with asking(net, b"/one%2Ftwo/%C3%A9?q=%20", headers, http=http, root_path="/mount") as (_served, peer, call):
            scope = call.scope
            assert scope["type"] == "websocket"
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
            assert scope["http_version"] == "1.1"
            assert scope["scheme"] == ("wss" if net.tls else "ws")
            assert scope["server"] == peer.writer.get_extra_info("peername")
            assert scope["client"] == peer.writer.get_extra_info("sockname")
            assert (scope["root_path"], scope["path"]) == ("/mount", "/mount/one/two/é")
            assert (scope["raw_path"], scope["query_string"]) == (b"/mount/one%2Ftwo/%C3%A9", b"q=%20")
            assert scope["headers"][0] == (b"host", b"localhost")
            assert [value for name, value in scope["headers"] if name == b"x-one"] == [b"caf\xc3\xa9", b"again"]
            assert (b"x-two", b"\xff") in scope["headers"]
            assert scope["subprotocols"] == ["a", "b", "c"]
            assert scope["extensions"] == {"websocket.http.response": {}}

    net.run(test())


def test_applications_share_values_of_the_state_but_not_its_keys(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            served.app_state = {"shared": []}
            calls = []
            for _ in range(2):
                async with stream(net, served.url) as peer:
                    peer.write(HEAD % b"/" + b"\r\n")
                    calls.append(await served.calls.get())
            one, two = (call.scope for call in calls)
            one["state"]["own"] = one["asgi"]["own"] = one["extensions"]["own"] = 1
            assert one["state"]["shared"] is two["state"]["shared"] is served.app_state["shared"]
            assert "own" not in {**two["state"], **two["asgi"], **two["extensions"], **served.app_state}

    net.run(test())


@over_both_http_classes
def test_an_upgrade_has_the_headers_of_the_server_and_then_the_application_s(net: Network, http: str) -> None:
    async def test() -> None:
        async with asking(net, headers=b"Sec-WebSocket-Protocol: a, b\r\n", http=http) as (served, peer, call):
            served.state.default_headers += [(b"Server", b"over-ridden")]
            await call.accept(subprotocol="b", headers=[(b"Server", b"another-value"), (b"Set-Cookie", b"a=\xc3\xa9")])
            status, headers = await head_of(peer)
            assert status == 101
            assert [value for name, value in headers if name == "server"] == ["uvicorn", "over-ridden", "another-value"]
            assert [value for name, value in headers if name == "date"] == ["today"]
            assert ("set-cookie", "a=Ã©") in headers
            assert ("sec-websocket-protocol", "b") in headers
            assert ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in headers

    net.run(test())


def test_headers_of_the_upgrade_are_not_the_application_s(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            await call.accept(headers=[(b"Content-Length", b"5"), (b"connection", b"close"), (b"X", b"1")])
            _, headers = await head_of(peer)
            assert ("x", "1") in headers
            assert "content-length" not in dict(headers)
            assert [value for name, value in headers if name == "connection"] == ["Upgrade"]

    net.run(test())


@pytest.mark.parametrize("header", [(b"X", b"a\r\nY: b"), (b"X Y", b"a"), ("X", "a")])
def test_a_header_that_cannot_be_sent_is_refused(net: Network, header: Any) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            with pytest.raises((TypeError, ValueError), match="header"):
                await call.send({**ACCEPT, "headers": [header]})
            call.return_()
            status, _, _ = await answer_of(peer)
            assert status == 500

    net.run(test())


def test_headers_that_are_switched_off_are_not_sent(net: Network) -> None:
    async def test() -> None:
        async with asking(net, server_header=False) as (served, peer, call):
            served.state.default_headers = []
            await call.accept()
            _, headers = await head_of(peer)
            assert not {"server", "date"} & set(dict(headers))

    net.run(test())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Version: 13", b"Version: 12"), 426),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), 400),
        ((b"GET", b"POST"), 405),
        ((b"Version: 13\r\n", b"Version: 13\r\nSec-WebSocket-Extensions: ;\r\n"), 400),
    ],
)
@over_both_http_classes
def test_what_is_no_request_for_websocket_starts_no_application(
    net: Network, http: str, change: tuple[bytes, bytes], status: int
) -> None:
    async def test() -> None:
        async with serving(net, http=http) as served, stream(net, served.url) as peer:
            peer.write((HEAD % b"/" + b"\r\n").replace(*change))
            answered, headers, _ = await answer_of(peer)
            assert answered == status
            assert headers["server"] == "uvicorn"
            assert served.calls.empty()
            if status == 426:
                assert headers["sec-websocket-version"] == "13"
            if status == 405:
                assert headers["allow"] == "GET, HEAD, OPTIONS"
            await served.ended()

    net.run(test())


@over_both_http_classes
def test_many_large_headers_are_uvicorn_s_business(net: Network, http: str) -> None:
    async def test() -> None:
        cookies = b"".join(b"Cookie: %b\r\n" % (b"c" * 4000) for _ in range(10))
        async with asking(net, headers=cookies, http=http) as (_, _peer, call):
            assert len([name for name, _ in call.scope["headers"] if name == b"cookie"]) == 10

    net.run(test())


@over_tcp_and_tls
def test_a_refusal_is_403(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def test() -> None:
        async with asking(net, b"/no?x=1") as (_served, peer, call):
            assert await call.receive() == CONNECT
            await call.send({"type": "websocket.close", "code": 4000, "reason": ["no", "str"]})
            status, headers, body = await answer_of(peer)
            assert (status, headers["content-length"], headers["connection"], body) == (403, "0", "close", b"")
            assert headers["date"] == "today"
            assert await call.receive() == {"type": "websocket.disconnect", "code": 1006}
            with pytest.raises(RuntimeError, match=r"websocket\.accept"):
                await call.send(ACCEPT)
            client = "{}:{}".format(*call.scope["client"])
            assert caplog.messages == [f'{client} - "WebSocket /no?x=1" 403']

    net.run(test())


def test_an_answer_of_the_application_is_sent_as_it_is(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def test() -> None:
        async with asking(net) as (_, peer, call):
            headers = [(b"Content-Type", b"application/x"), (b"Content-Length", b"3"), (b"Connection", b"keep-alive")]
            await call.send({"type": START, "status": 404, "headers": headers})
            await call.send({"type": BODY, "body": b"\xff\0", "more_body": True})
            await call.send({"type": BODY, "body": b"!"})
            status, sent, body = await answer_of(peer)
            assert (status, body) == (404, b"\xff\0!")
            assert (sent["content-type"], sent["content-length"], sent["connection"]) == ("application/x", "3", "close")
            assert await call.receive() == CONNECT
            assert await call.receive() == {"type": "websocket.disconnect", "code": 1006}
            with pytest.raises(RuntimeError, match="response already completed"):
                await call.send({"type": BODY})
            client = "{}:{}".format(*call.scope["client"])
            assert caplog.messages == [f'{client} - "WebSocket /" 404']

    net.run(test())


def test_an_answer_without_a_length_is_framed(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 401})
            await call.send({"type": BODY, "body": b"all"})
            status, headers, body = await answer_of(peer)
            assert (status, headers["content-length"], body) == (401, "3", b"all")
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 401, "headers": []})
            for part in (b"some", b"", b"more"):
                await call.send({"type": BODY, "body": part, "more_body": True})
            await call.send({"type": BODY})
            _, headers, body = await answer_of(peer)
            assert headers["transfer-encoding"] == "chunked"
            assert body == b"4\r\nsome\r\n4\r\nmore\r\n0\r\n\r\n"
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 204})
            await call.send({"type": BODY})
            status, headers, body = await answer_of(peer)
            assert status == 204
            assert "content-length" not in headers

    net.run(test())


def test_a_status_without_a_name_is_sent_without(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 299})
            await call.send({"type": BODY})
            assert await peer.reader.readline() == b"HTTP/1.1 299 \r\n"

    net.run(test())


@pytest.mark.parametrize("status", [99, 600, "404", 101])
def test_an_answer_that_is_none_is_a_500(net: Network, status: object) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            with pytest.raises(RuntimeError, match="status"):
                await call.send({"type": START, "status": status, "headers": []})
            call.return_()
            answered, headers, body = await answer_of(peer)
            assert (answered, headers["content-length"], headers["connection"]) == (500, "21", "close")
            assert body == b"Internal Server Error"

    net.run(test())


def test_an_answer_is_begun_once(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, _peer, call):
            await call.send({"type": START, "status": 404, "headers": []})
            with pytest.raises(RuntimeError, match=rf"(?s){BODY}.*{START}"):
                await call.send({"type": START, "status": 404, "headers": []})

    net.run(test())


def test_an_answer_waits_for_a_client_that_does_not_read(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 404, "headers": []})
            part = b"x" * 8_000_000
            sending = asyncio.ensure_future(call.send({"type": BODY, "body": part, "more_body": True}))
            await peer.reader.readuntil(b"\r\n\r\n")
            assert not sending.done()
            assert await peer.reader.readline() == b"7a1200\r\n"
            assert await peer.reader.readexactly(len(part)) == part
            await sending
            sending = asyncio.ensure_future(call.send({"type": BODY, "body": part, "more_body": True}))
            await peer.reader.readexactly(2)
            peer.writer.transport.abort()
            with pytest.raises(OSError, match=r"^$"):
                await sending

    net.run(test())


def test_what_a_client_sends_behind_a_refusal_is_read_and_dropped(net: Network) -> None:
    """Or a client that writes before it reads would never see the answer."""

    async def test() -> None:
        async with asking(net) as (_, peer, call):
            await call.send({"type": START, "status": 404, "headers": []})
            for _ in range(2):
                await call.send({"type": BODY, "body": b"part", "more_body": True})
                peer.write(bytes(10_000_000))
                await peer.writer.drain()
            assert (await head_of(peer))[0] == 404
            assert await peer.reader.readexactly(18) == b"4\r\npart\r\n4\r\npart\r\n"

    net.run(test())


def test_an_answer_that_a_client_does_not_take_has_its_time(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (served, peer, call):
            peer.writer.transport.pause_reading()
            (connection,) = served.state.connections
            connection.close_timeout = 0.02
            await call.send({"type": START, "status": 404})
            await call.send({"type": BODY, "body": b"x" * 30_000_000})
            call.return_()
            await served.ended()

    net.run(test())


@pytest.mark.parametrize("event", [text("too early"), {"type": BODY}, {"type": "nonsense"}])
def test_before_an_answer_nothing_else_is_taken(net: Network, event: Any) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            with pytest.raises(RuntimeError, match=rf"(?s)websocket\.accept.*{event['type']}") as caught:
                await call.send(event)
            call.raise_(caught.value)
            assert (await answer_of(peer))[0] == 500

    net.run(test())


@pytest.mark.parametrize("outcome", ["returns", "raises"])
def test_an_application_that_does_not_answer_is_a_500(
    net: Network, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            if outcome == "returns":
                call.return_()
            else:
                call.raise_(ZeroDivisionError("of the application"))
            status, headers, body = await answer_of(peer)
            assert (status, headers["content-length"], body) == (500, "21", b"Internal Server Error")
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        if outcome == "returns":
            assert record.getMessage() == "ASGI callable returned without completing handshake."
        else:
            assert record.getMessage() == "Exception in ASGI application\n"
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError

    net.run(test())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_application_that_exits_ends_the_loop(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with asking(Network()) as (_, peer, call):
            call.raise_(error(7))
            assert (await answer_of(peer))[0] == 500

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # told of the exit again when its task is collected, maybe in another test
    task = loop.create_task(test())
    with pytest.raises(error, match="7"):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    loop.close()
    assert "Exception in ASGI application\n" in caplog.messages


@pytest.mark.parametrize("resets", [True, False])
def test_an_application_has_a_context_of_its_own_where_the_server_wants_it(net: Network, resets: bool) -> None:
    variable = contextvars.ContextVar("variable", default="of the application")

    async def test() -> None:
        async with serving(net) as served:
            served.config.reset_contextvars = resets
            told = asyncio.get_running_loop().create_future()

            async def application(scope: Any, receive: Any, send: Any) -> None:
                told.set_result(variable.get())

            served.config.loaded_app = application
            variable.set("of the server")
            server_too, client = socket.socketpair()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(served.protocol, server_too)
            with client:
                client.send(HEAD % b"/" + b"\r\n")
                assert await told == ("of the application" if resets else "of the server")
            transport.abort()

    net.run(test())


def test_a_client_that_leaves_before_the_answer_is_1006(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with asking(net) as (served, peer, call):
            assert await call.receive() == CONNECT
            receiving = asyncio.ensure_future(call.receive())
            await peer.close()
            assert await receiving == {"type": "websocket.disconnect", "code": 1006}
            assert not served.state.connections
            with pytest.raises(OSError, match=r"^$"):
                await call.send(ACCEPT)
            call.return_()
            await served.ended()
        assert not caplog.records

    net.run(test())


def test_a_client_that_leaves_in_the_moment_of_the_answer_is_told_of_at_once(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (served, _peer, call):
            assert await call.receive() == CONNECT
            (connection,) = served.state.connections
            connection.transport.abort()  # connection_lost() comes with the next turn of the loop
            with pytest.raises(OSError, match=r"^$"):
                await call.send(ACCEPT)

    net.run(test())


def test_a_client_that_does_not_wait_for_the_answer_waits_for_room(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (served, peer, call):
            peer.write(encode(TEXT, b"x" * 12_000_000, mask=True))
            draining = asyncio.ensure_future(peer.writer.drain())
            (connection,) = served.state.connections
            while connection.transport.is_reading():
                await asyncio.sleep(0)
            assert not draining.done()
            await call.accept()
            assert len((await call.receive())["text"]) == 12_000_000
            await draining

    net.run(test())


@over_tcp_and_tls
def test_messages_of_a_client_that_does_not_wait_for_the_answer_are_not_lost(net: Network) -> None:
    async def test() -> None:
        async with asking(net) as (_, peer, call):
            peer.write(encode(TEXT, b"early", mask=True))
            # So much that it has to be read in several turns.
            peer.write(encode(TEXT, b"x" * 50_000, mask=True))
            await peer.writer.drain()
            for _ in range(20):
                await asyncio.sleep(0)
            await call.accept()
            assert await call.receive() == {"type": "websocket.receive", "text": "early"}
            assert (await call.receive())["text"] == "x" * 50_000

    net.run(test())


def test_a_second_accept_drops_the_connection(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            with pytest.raises(RuntimeError, match=r"(?s)websocket\.send.*websocket\.accept") as caught:
                await call.send(ACCEPT)
            call.raise_(caught.value)
            assert await peer.receive_all() == []

    net.run(test())


def test_connections_are_traced(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(5, "uvicorn.error")

    async def test() -> None:
        async with accepted(net) as (_, _peer, call):
            client = "{}:{}".format(*call.scope["client"])
        made, answered, lost = (record for record in caplog.records if "WebSocket conn" in record.msg or "[acc" in record.msg)
        assert made.getMessage() == f"{client} - WebSocket connection made"
        assert (answered.getMessage(), answered.levelname) == (f'{client} - "WebSocket /" [accepted]', "INFO")
        assert lost.getMessage() == f"{client} - WebSocket connection lost"
        assert made.levelno == lost.levelno == 5

    net.run(test())
