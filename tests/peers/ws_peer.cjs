// The package `ws` of node as a peer: `server` echoes what comes, `client URL` says something. Both tell what they saw, in lines of JSON.
const { WebSocket, WebSocketServer } = require("ws");

const tell = what => console.log(JSON.stringify(what));
const settings = { perMessageDeflate: { threshold: 64 } };

const closed = ws => ws.on("close", (code, reason) => tell({ closed: code, reason: reason.toString() }));

if (process.argv[2] == "server") {
    const server = new WebSocketServer({ ...settings, host: "127.0.0.1", port: 0 });
    server.on("listening", () => tell({ port: server.address().port }));
    server.on("connection", (ws, request) => {
        tell({ path: request.url, protocol: ws.protocol, extensions: ws.extensions });
        ws.on("message", (data, isBinary) => {
            if (data.toString() == "close") return ws.close(4001, "as you wish");
            if (data.toString() == "terminate") return ws.terminate();
            ws.send(data, { binary: isBinary });
        });
        ws.on("ping", data => tell({ ping: data.toString() }));
        closed(ws);
    });
} else {
    const ws = new WebSocket(process.argv[3], ["chat.v2", "chat"], settings);
    let received = 0;
    ws.on("open", () => {
        tell({ protocol: ws.protocol, extensions: ws.extensions });
        ws.ping("are you there");
        ws.send("hello \u20ac");
        ws.send("in ", { fin: false });
        ws.ping("between");
        ws.send("pieces", { fin: true });
        ws.send(Buffer.alloc(1 << 20, "0123456789"));
    });
    ws.on("pong", data => tell({ pong: data.toString() }));
    ws.on("message", (data, isBinary) => {
        tell({ isBinary, size: data.length, text: data.length < 100 ? data.toString() : "" });
        if (++received == 3) ws.close(4000, "done");
    });
    closed(ws);
}
