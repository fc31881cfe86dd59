"""Applications of further frameworks run on PicowsProtocol unchanged."""

from __future__ import annotations

import pytest

from picows import WSCloseCode, WSMsgType
from tests.connection.networks import Network, Recorder, cut
from tests.connection.peers import CLOSE, close_code
from tests.uvicorn.programs import running


@pytest.mark.parametrize(
    ("module", "application"),
    [("litestar", "litestar_app"), ("quart", "quart_app"), ("channels", "channels_app")],
)
def test_an_application_echoes_and_is_told_of_the_end(net: Network, module: str, application: str) -> None:
    pytest.importorskip(module, reason=f"requirements-frameworks.txt has {module}")
    pytest.importorskip("uvicorn", reason="PicowsProtocol is for uvicorn")

    async def test(url: str) -> None:
        client = await net.connect(Recorder, url)
        for number in range(20):
            client.transport.send(WSMsgType.TEXT, f"message {number}")
        assert [await client.payload() for _ in range(20)] == [b"message %d" % number for number in range(20)]
        client.transport.send_close(WSCloseCode.OK)
        assert close_code(await client.frames.get()) == 1000
        await cut(client)

        client = await net.connect(Recorder, url)
        client.transport.send(WSMsgType.TEXT, "again")
        assert await client.payload() == b"again"
        server.interrupt()
        frame = await client.frames.get()
        assert frame.msg_type == CLOSE
        assert close_code(frame) == 1012
        await cut(client)

    with running(f"tests.frameworks.applications:{application}", "--factory", "--port", 0) as server:
        net.run(test(server.url()))
        assert "Exception in ASGI" not in server.finish()
