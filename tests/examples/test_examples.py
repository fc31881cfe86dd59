"""Every example runs, does what its text says, and ends in peace."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websockets

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from picows.websockets import ServerConnection, connect, serve
from tests.brokers.servers import redis_server
from tests.connection.proxies import SCHEMES, USER_INFO, running_proxy
from tests.examples.program import ROOT, Start


def test_every_example_is_run_here() -> None:
    examples = {path.stem for path in (ROOT / "examples").glob("*.py*")} - {"__init__"}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    run_here = set(re.findall(r'"(\w+)"', tests))
    # Programs, one of several files, which have tests of their own.
    assert {name for name in examples - run_here if not name.startswith("benchmark")} == set()


# picows.websockets


def test_a_chat_by_coroutines(start: Start) -> None:
    server = start("websockets_server", "--port", 0)
    url = server.url()

    async def chat() -> None:
        async with connect(url + "a") as first, connect(url + "a") as second, connect(url + "b") as other:
            await first.send("hello")
            assert [await first.recv(), await second.recv()] == ["hello", "hello"]
            await other.send("alone")
            assert await other.recv() == "alone"
            await (await other.ping())  # no handler runs now: before Python 3.11 Ctrl+C is raised wherever the program is
            server.interrupt()
            await first.wait_closed()
            # Before Python 3.11 it cancels all tasks, in any order: the handlers, too.
            assert first.close_code == 1001 or (sys.version_info < (3, 11) and first.close_code == 1011)

    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as plain:
        plain.request("GET", "/health")
        assert plain.getresponse().read() == b"OK\n"
    asyncio.run(chat())
    server.finish()


# Echo


def test_a_client_gets_its_message_echoed(start: Start) -> None:
    server = start("echo_server", "--port", 0)
    client = start("echo_client", "--url", server.url())
    assert client.finish() == ["Echo reply: Hello world"]
    server.wait_for("Client disconnected")
    server.interrupt()
    server.finish()


def test_a_client_of_websockets(start: Start) -> None:
    server = start("echo_server", "--port", 0)
    client = start("websockets_client", "--url", server.url(), "--count", 2)
    assert client.finish() == ["Echo reply: Hello 0", "Echo reply: Hello 1", "The server has seen all of it"]
    server.wait_for("Client disconnected")


def test_a_document_is_echoed_compressed(start: Start) -> None:
    server = start("echo_server_messages", "--port", 0)
    url = server.url()
    client = start("echo_client_messages", "--url", url)
    agreed, result = client.finish()
    assert agreed.startswith("Agreed on: permessage-deflate")
    assert re.fullmatch(r"\d+ characters came back unchanged", result)
    server.wait_for("Client disconnected")
    plain = start("echo_client", "--url", url)
    assert plain.finish() == ["Echo reply: Hello world"]


def test_a_server_stops_though_a_client_is_connected(start: Start) -> None:
    server = start("echo_server", "--port", 0)
    client = start("reconnecting_client", "--url", server.url())
    client.wait_for("Received")
    server.interrupt()
    assert server.end() == 0


def test_a_client_gets_its_message_echoed_over_tls(start: Start) -> None:
    server = start("echo_server_tls", "--port", 0)
    url = server.url()
    trusting = start("echo_client_tls", "--url", url)
    suspicious = start("echo_client_tls", "--url", url, "--system-trust")
    assert trusting.finish() == ["Connected by TLSv1.3", "Echo reply: Hello world"]
    suspicious.wait_for("CERTIFICATE_VERIFY_FAILED")


def test_messages_are_handled_by_coroutines(start: Start, echo_url: str) -> None:
    printed = start("echo_client_async_callbacks", "--url", echo_url).finish()
    messages = ["one", "two", "three"]
    assert [line for line in printed if line.startswith("Received")] == [
        f"Received: {message}" for message in messages
    ]
    assert sorted(line for line in printed if line.startswith("Processed")) == sorted(
        f"Processed: {message}" for message in messages
    )


def test_a_message_travels_in_fragments(start: Start, echo_url: str) -> None:
    assert start("echo_client_fragmented_msg", "--url", echo_url).finish() == [
        "TEXT, fin=False, 16 bytes",
        "CONTINUATION, fin=False, 16 bytes",
        "CONTINUATION, fin=True, 11 bytes",
        "TEXT message: The quick brown fox jumps over the lazy dog",
    ]


def test_the_client_in_cython(start: Start, echo_url: str, tmp_path: Path) -> None:
    directory = ROOT
    if importlib.util.find_spec("examples.echo_client_cython") is None:
        directory = tmp_path
        compile_example("echo_client_cython", directory)
    client = start(
        "echo_client_cython_runner", "--url", echo_url, "--round-trips", 50, directory=directory
    )
    (line,) = client.finish()
    assert re.fullmatch(r"50 round trips in \d\.\d+ seconds", line)


def compile_example(name: str, directory: Path) -> None:
    """Copy the examples there and compile one, as users compile their own code against picows."""
    examples = directory / "examples"
    shutil.copytree(ROOT / "examples", examples, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", examples / f"{name}.pyx"],
        cwd=ROOT,
        env={**os.environ, "CFLAGS": "-O0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_threads_share_a_port(start: Start) -> None:
    server = start("echo_server_threaded", "--port", 0, "--threads", 2)
    url = server.url()
    assert server.url() == url  # each thread says where it listens
    client = start(
        "echo_client_threaded", "--url", url, "--threads", 2, "--connections", 4, "--seconds", 0.5
    )
    head, *rates = client.finish()
    assert head.startswith("2 threads")
    assert len(rates) == 2
    assert sum(number_in(rate) for rate in rates) > 0
    server.interrupt()
    assert sum("Client connected" in line for line in server.finish()) == 8


def test_a_threaded_server_says_goodbye(start: Start) -> None:
    server = start("echo_server_threaded", "--port", 0, "--threads", 2)
    client = start("reconnecting_client", "--url", server.url())
    client.wait_for("Received")
    server.interrupt()
    client.wait_for("Disconnected")
    server.finish()


def test_the_demo_measures_every_combination(start: Start) -> None:
    printed = "\n".join(start("demo", "--seconds", 0.02).finish())
    assert "TCP" in printed
    assert "TLS" in printed


# How connections begin and end


def test_both_sides_close_by_the_book(start: Start) -> None:
    assert start("graceful_shutdown").finish() == [
        "The client left: CLOSE 1000 'done', answered by 1000 'done'",
        "The server stopped: CLOSE 1001 'restart', answered by 1001 'restart'",
    ]


def test_a_server_of_another_make_hands_over(start: Start) -> None:
    server = start("adopting_server", "--port", 0)
    url = server.url()
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"There is a websocket at /echo\n"
    connection.close()
    assert start("echo_client", "--url", url).finish() == ["Echo reply: Hello world"]
    server.wait_for("Client disconnected")
    server.interrupt()
    server.finish()


def test_a_client_reconnects(start: Start) -> None:
    server = start("echo_server", "--port", 0)
    url = server.url()
    client = start("reconnecting_client", "--url", url)
    client.wait_for("Received: Hello world")
    server.kill()
    client.wait_for("next attempt in")
    server = start("echo_server", "--port", urlsplit(url).port)
    client.wait_for("Received: Hello world")
    client.interrupt()
    client.finish()
    server.wait_for("Client disconnected")


def test_a_reconnecting_client_can_be_cancelled(start: Start, echo_url: str) -> None:
    printed = start("reconnecting_client", "--url", echo_url, "--seconds", 0.3).finish()
    assert sorted(printed) == ["Connected", "Received: Hello world", "Stopped"]


def test_a_reconnecting_client_outlives_a_server_that_is_not_there(start: Start) -> None:
    nobody = "ws://127.0.0.1:1/"
    printed = start("reconnecting_client", "--url", nobody, "--seconds", 0.3).finish()
    assert "ConnectionRefusedError" in printed[0]
    assert "next attempt in" in printed[0]
    assert printed[-1] == "Stopped"


def test_a_subprotocol_is_negotiated(start: Start) -> None:
    assert start("subprotocols").finish() == [
        "Offering greeting.v1.text, greeting.v2.json",
        'greeting.v2.json: {"greeting": "hello"}',
        "Offering greeting.v1.text",
        "greeting.v1.text: hello",
        "Offering farewell.v1",
        "Refused: b'No known subprotocol\\n'",
    ]


def test_a_server_answers_plain_http_too(start: Start) -> None:
    server = start("http_responses", "--port", 0)
    url = server.url()

    def get(path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        connection.close()
        return response

    health = get("/health")
    assert (health.status, health.read()) == (200, b"alive\n")
    assert health.headers["Content-Type"] == "text/plain"
    assert get("/nowhere").status == 404
    assert get("/private").headers["WWW-Authenticate"] == "Bearer"
    assert get("/private", Authorization="Bearer open-sesame").status == 426
    redirected = start("echo_client", "--url", f"{url}old")
    assert redirected.finish() == ["Echo reply: Hello world"]


def test_a_server_behind_a_load_balancer(start: Start) -> None:
    server = start("health_check", 0, "127.0.0.1", 0.01)
    url = server.url()

    async def talk() -> None:
        async with connect(url) as first, connect(url) as second:
            await first.send("hello")
            assert await first.recv() == "hello"
            server.terminate()
            await asyncio.gather(first.wait_closed(), second.wait_closed())
            assert [(each.close_code, each.close_reason) for each in (first, second)] == [(1001, "restart")] * 2

    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as plain:
        plain.request("GET", "/health")
        assert plain.getresponse().read() == b"alive\n"
    asyncio.run(talk())
    assert server.finish()[-1] == "WSShutdownReport(closed=2, aborted=0)"


def test_kubernetes_asks_for_what_the_server_has(start: Start) -> None:
    recipe = (ROOT / "docs" / "recipes" / "kubernetes.yaml").read_text(encoding="utf-8")
    (command,) = re.findall(r"command: \[python, -m, examples\.(\w+), \"(\d+)\", \"([\d.]+)\"\]", recipe)
    probes = re.findall(r"httpGet: \{path: (\S+), port: (\d+)\}", recipe)
    assert probes == [("/health", command[1])] * 2
    assert re.findall(r"(?:containerPort|targetPort): (\d+)", recipe) == [command[1]] * 2
    server = start(command[0], 0, command[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", urlsplit(server.url()).port)) as plain:
        plain.request("GET", probes[0][0])
        assert plain.getresponse().status == 200
    server.terminate()
    server.finish()


def test_market_data_comes_again_behind_a_loss(start: Start) -> None:
    pytest.importorskip("msgspec")

    async def serve_trades() -> None:
        subscribed: list[object] = []

        async def trades(ws: ServerConnection) -> None:
            subscribed.append(json.loads(await ws.recv()))
            await ws.send(json.dumps({"symbol": "A", "price": len(subscribed), "more": []}))
            if len(subscribed) == 1:
                ws.transport.abort()
            await ws.wait_closed()

        async with serve(trades, "127.0.0.1", 0) as server:
            url = "ws://{}:{}/".format(*server.sockets[0].getsockname())
            client = start("market_data", url, "A", "B")
            loop = asyncio.get_running_loop()
            for price in ("1.0", "2.0"):
                line = await loop.run_in_executor(None, client.wait_for, "Trade")
                assert line == f"Trade(symbol='A', price={price})"
            client.interrupt()
            assert subscribed == [{"op": "subscribe", "symbols": ["A", "B"]}] * 2

    asyncio.run(serve_trades())


def test_figures_are_served_on_the_same_port(start: Start) -> None:
    pytest.importorskip("prometheus_client")
    server = start("metrics_server", "--port", 0)
    url = server.url()
    assert start("echo_client", "--url", url).finish() == ["Echo reply: Hello world"]
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    figures = dict(line.split() for line in response.read().decode().splitlines() if not line.startswith("#"))
    connection.close()
    assert response.headers["Content-Type"].startswith("text/plain")
    assert float(figures["picows_total_connections_total"]) == 1
    assert float(figures["picows_handshakes"]) == 1
    assert float(figures["picows_frames_received_total"]) >= 1
    assert float(figures["picows_bytes_sent_total"]) >= len("Hello world")


def test_socket_options_are_set(start: Start, echo_url: str) -> None:
    printed = start("socket_options", "--url", echo_url).finish()
    options = dict(line.split(": ") for line in printed)
    assert options.pop("Echo reply") == "Hello world"
    assert int(options.pop("SO_RCVBUF")) > 0  # the system has its own limits
    assert options == {"SO_KEEPALIVE": "1", "TCP_NODELAY": "1"}


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "https"])
def test_a_client_connects_through_a_proxy(start: Start, echo_url: str, scheme: str) -> None:
    async def connect() -> list[str]:
        async with running_proxy(scheme, auth=True) as proxy:
            client = start("proxies", "--url", echo_url, "--proxy", proxy.url_for(USER_INFO))
            printed = await asyncio.get_running_loop().run_in_executor(None, client.finish)
            assert proxy.asked == [("127.0.0.1", urlsplit(echo_url).port)]
            return printed

    assert asyncio.run(connect()) == [
        f"Connecting through {scheme} proxy",
        "Echo reply: Hello world",
    ]


# Many messages, many clients


def test_what_one_says_all_hear(start: Start) -> None:
    server = start("broadcast_server", "--port", 0)
    url = server.url()
    alice = start("broadcast_client", "--url", url, "--say", "Alice", "--listen", 2)
    alice.wait_for("Heard: Alice")
    bob = start("broadcast_client", "--url", url, "--say", "Bob")
    assert bob.finish() == ["Joined", "Heard: Bob"]
    assert alice.finish() == ["Joined", "Heard: Alice", "Heard: Bob"]
    server.wait_for("0 in the room")
    server.interrupt()
    server.finish()


def test_clients_hear_of_their_topics(start: Start) -> None:
    server = start("topics_server", "--port", 0)
    url = server.url()

    async def talk() -> None:
        async with connect(url) as first, connect(url) as second:
            for line in ("subscribe a", "subscribe b", "unsubscribe b", "subscribe a.*", "publish b text"):
                await first.send(line)
            assert "wildcard" in str(await first.recv())
            await first.send("publish a hello")
            assert await first.recv() == "a: hello"
            await second.send("publish a and you")
            assert await first.recv() == "a: and you"
        async with connect(url) as other:
            await other.send("publish a")

    asyncio.run(talk())
    assert server.wait_for("b:") == "b: sent to 0"
    assert [server.wait_for("a:") for _ in range(3)] == ["a: sent to 1", "a: sent to 1", "a: sent to 0"]
    server.interrupt()
    server.finish()


def test_workers_share_topics_and_are_restarted_one_by_one(start: Start, tmp_path: Path) -> None:
    async def talk() -> None:
        async with redis_server(tmp_path, 0) as redis:
            server = start("topics_workers", "--port", 0, "--workers", 2, "--broker", redis.url)
            url = server.url()
            async with connect(url) as reader, connect(url) as writer:
                await reader.send("subscribe a")
                assert await reader.recv() == "subscribed a 0-0"
                await writer.send("publish a first")
                topic, position, text = str(await reader.recv()).split(" ")
                assert (topic, text) == ("a", "first")
                server.hang_up()
                await reader.wait_closed()
                await writer.wait_closed()
                assert reader.close_code == writer.close_code == 1012
            server.wait_for("Restarted")
            async with connect(url) as writer:
                await writer.send("subscribe b")
                assert await writer.recv() == "subscribed b 0-0"
                await writer.send("subscribe a")
                await writer.recv()
                await writer.send("publish a second")
                assert str(await writer.recv()).endswith("second")
            async with connect(url) as reader:
                await reader.send(f"subscribe a {position}")
                assert str(await reader.recv()).endswith("second")
                assert str(await reader.recv()).startswith("subscribed a")
                await reader.send("subscribe a 99999999999999-0")
                await reader.send("subscribe c 99999999999999-0")
                await reader.recv()
                assert str(await reader.recv()).startswith("error: what was published to 'c'")
            server.interrupt()
            server.finish()

    asyncio.run(talk())


def test_people_talk_in_rooms(start: Start) -> None:
    """The page and its browser: tests/peers/test_web_browser.py."""
    server = start("web_chat", 0)
    url = server.url()

    async def talk() -> None:
        address = f"ws{url.removeprefix('http')}rooms"
        async with contextlib.AsyncExitStack() as stack:
            anna, bert, carl = [
                await stack.enter_async_context(websockets.connect(f"{address}/{room}", proxy=None))
                for room in ("tea", "tea", "coffee")
            ]
            for people, text in (([anna, bert], "hello"), ([bert, anna], "and you"), ([carl], "alone")):
                await people[0].send(json.dumps({"name": "somebody", "text": text}))
                for person in people:
                    assert json.loads(await person.recv()) == {"name": "somebody", "text": text}
            await bert.close()
            await anna.send('"still here"')
            assert await anna.recv() == '"still here"'

    asyncio.run(talk())
    assert "<title>Chat</title>" in fetch(url)
    server.interrupt()
    server.finish()


def test_the_chat_stops_politely(start: Start) -> None:
    server = start("web_chat", 0)
    url = f"ws{server.url().removeprefix('http')}rooms/tea"

    async def talk() -> None:
        async with connect(url) as anna, connect(url) as bert:
            await anna.send('{"text": "hello"}')
            assert [json.loads(await each.recv()) for each in (anna, bert)] == [{"text": "hello"}] * 2
            server.interrupt()
            await asyncio.gather(anna.wait_closed(), bert.wait_closed())
            assert (anna.close_code, bert.close_code) == (1001, 1001)

    asyncio.run(talk())
    server.finish()


def fetch(url: str) -> str:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_a_client_that_does_not_listen_has_to_go(start: Start) -> None:
    server = start("broadcast_server", "--port", 0)
    message = b"x" * 512 * 1024

    class Deaf(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.underlying_transport.pause_reading()

    class Chatty(WSListener):
        """Speaks again when it has heard itself."""

        heard = 0

        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.send(WSMsgType.TEXT, message)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.heard += 1
            if self.heard < 32:
                transport.send(WSMsgType.TEXT, message)
            else:
                transport.disconnect()

    async def talk(url: str) -> int:
        deaf, _ = await ws_connect(Deaf, url)
        chatty = Chatty()
        transport, _ = await ws_connect(lambda: chatty, url)
        await transport.wait_disconnected()
        deaf.disconnect(graceful=False)
        await deaf.wait_disconnected()
        return chatty.heard

    assert asyncio.run(talk(server.url())) == 32
    server.wait_for("A client was too slow")
    server.wait_for("0 in the room")


def test_a_producer_waits_for_a_slow_client(start: Start) -> None:
    received, paused, waiting = start("slow_client_backpressure", "--messages", 2000).finish()
    assert received == "The client received 2000 of 2000 messages"
    assert number_in(paused) > 0
    # The high-water mark, and the message that passed it.
    assert number_in(waiting) <= 256 + 17


def number_in(line: str) -> int:
    (number,) = re.findall(r"\d+", line)
    return int(number)


def test_a_quick_connection_is_kept_and_a_slow_one_replaced(start: Start, echo_url: str) -> None:
    quick = start("okx_roundtrip_time", "--url", echo_url, "--threshold", 10)
    slow = start("okx_roundtrip_time", "--url", echo_url, "--threshold", 0, "--attempts", 2)
    measured, verdict = quick.finish()
    assert measured.startswith("Attempt 1: ")
    assert verdict == "Quick enough"
    *attempts, verdict = slow.finish(exit_code=1)
    assert [line.split(":")[0] for line in attempts] == ["Attempt 1", "Attempt 2"]
    assert verdict == "No connection within 0 ms"


# Other servers


def test_an_asgi_application_is_served_by_uvicorn(start: Start) -> None:
    for module in ("uvicorn", "starlette"):
        pytest.importorskip(module, reason="the example is a Starlette application under uvicorn")
    server = start("asgi_server", "--port", 0)
    url = server.wait_for("running on http").split("http")[1].split()[0]

    async def test() -> None:
        transport, listener = await ws_connect(Answers, f"ws{url}/")
        transport.send(WSMsgType.TEXT, "hello")
        assert await listener.answer == "HELLO"
        transport.disconnect()

    class Answers(WSListener):
        def __init__(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.answer.set_result(frame.get_payload_as_utf8_text())

    asyncio.run(test())
    server.interrupt()
    server.end()
