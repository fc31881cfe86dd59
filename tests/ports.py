from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port on which nobody listens, below those that the system gives to clients: one of these could take it meanwhile."""
    for port in random.sample(range(20000, 30000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
