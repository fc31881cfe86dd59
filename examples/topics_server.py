"""Topics: each client says what it wants to hear of, and hears that.

Clients send lines: "subscribe TOPIC", "unsubscribe TOPIC", "publish TOPIC TEXT".

python -m examples.topics_server --port 9001
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from picows import WSFrame, WSListener, WSMsgType, WSTopics, WSTransport, ws_create_server


class Subscriber(WSListener):
    def __init__(self, topics: WSTopics) -> None:
        self._topics = topics

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        command, topic, text = (frame.get_payload_as_utf8_text() + "  ").split(" ", 2)
        try:
            if command == "subscribe":
                self._topics.subscribe(transport, topic)
            elif command == "unsubscribe":
                self._topics.unsubscribe(transport, topic)
            elif command == "publish":
                count = self._topics.publish(topic, WSMsgType.TEXT, f"{topic}: {text.strip()}")
                print(f"{topic}: sent to {count}")
        except ValueError as error:  # of the topic
            transport.send(WSMsgType.TEXT, f"error: {error}")

    # Nothing is done for a client that leaves: it leaves its topics by itself.


async def main(host: str, port: int) -> None:
    topics = WSTopics()
    server = await ws_create_server(lambda request: Subscriber(topics), host, port)
    for sock in server.sockets:
        print("Listening on ws://{}:{}/".format(*sock.getsockname()))
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 for any free one")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(args.host, args.port))
