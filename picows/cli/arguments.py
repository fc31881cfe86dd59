"""What the commands take, and ``--help``."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Callable

from .. import __version__

EPILOG = "'picows COMMAND --help' tells the arguments of a command."


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with the coroutine function that does the work in `command`.

    :raises SystemExit: after ``--help``, ``--version`` and wrong arguments
    """
    parser = argparse.ArgumentParser(
        prog="picows", description="WebSocket tools for the terminal.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"picows {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (_add_connect, _add_ping, _add_bench, _add_echo, _add_serve):
        add(commands)
    return parser.parse_args(arguments)


def _add_connect(commands: Any) -> None:
    parser = _command(
        commands,
        "connect",
        "talk to a server",
        "Send lines as messages and print what comes. On a terminal lines are edited, with history; in a "
        "pipe each line is a message, and at the end of the input the connection is closed.",
    )
    _add_client_options(parser)
    parser.add_argument(
        "-x", "--send", metavar="MESSAGE", action="append", default=[], help="send this first"
    )
    parser.add_argument(
        "-n", "--count", type=_positive, metavar="N", help="leave after N messages have come"
    )
    parser.add_argument(
        "-l", "--listen", action="store_true", help="read no input, print until the server closes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON over several lines")
    parser.add_argument(
        "--ping-interval",
        type=_seconds,
        metavar="S",
        help="ping a silent server after S seconds, and give it up after as many more",
    )


def _add_ping(commands: Any) -> None:
    parser = _command(
        commands,
        "ping",
        "measure round-trip times",
        "Send PING frames and time the PONGs. Ends well if at least one has come.",
    )
    _add_client_options(parser)
    parser.add_argument(
        "-c", "--count", type=_positive, metavar="N", help="stop after N pings; else by Ctrl+C"
    )
    parser.add_argument(
        "-i", "--interval", type=_seconds, default=1.0, metavar="S", help="between two pings (1)"
    )
    parser.add_argument(
        "-W", "--wait", type=_seconds, default=5.0, metavar="S", help="for a pong, at most (5)"
    )


def _add_bench(commands: Any) -> None:
    parser = _command(
        commands,
        "bench",
        "load an echo server",
        "Keep messages in flight to a server that sends each back, and tell rate and latency.",
    )
    _add_client_options(parser)
    parser.add_argument(
        "-c", "--connections", type=_positive, default=10, metavar="N", help="how many (10)"
    )
    parser.add_argument(
        "-d", "--depth", type=_positive, default=1, metavar="N", help="in flight on each (1)"
    )
    parser.add_argument(
        "-s", "--size", type=_size, default=256, metavar="BYTES", help="of a message (256)"
    )
    parser.add_argument(
        "-t", "--time", type=_positive_seconds, default=10.0, metavar="S", help="how long (10)"
    )
    parser.add_argument("--text", action="store_true", help="send TEXT, not BINARY")


def _add_echo(commands: Any) -> None:
    parser = _command(
        commands, "echo", "serve echoes", "A server that sends every message back to its sender."
    )
    _add_server_options(parser)


def _add_serve(commands: Any) -> None:
    parser = _command(
        commands,
        "serve",
        "serve an application",
        "Serve MODULE:NAME, which is the listener factory that ws_create_server takes, or an ASyncApp of "
        "picows.web. SIGTERM and Ctrl+C end all connections by CLOSE 1001, a second one at once; SIGHUP puts "
        "new workers in the place of the old ones, whose clients are told by CLOSE 1012.",
    )
    parser.add_argument("target", type=_target, metavar="MODULE:NAME", help="what to serve")
    _add_server_options(parser)
    parser.add_argument(
        "-w", "--workers", type=_positive, default=1, metavar="N", help="processes (1)"
    )
    parser.add_argument(
        "--reload", action="store_true", help="start anew when a Python file here has changed"
    )


def _command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description
    )
    parser.set_defaults(command=_Command(name))
    parser.add_argument(
        "--loop",
        choices=("auto", "asyncio", "uvloop"),
        default="auto",
        help="the event loop; auto: uvloop if it is installed",
    )
    return parser


class _Command:
    """The coroutine function of a command; its module is imported when it is called for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, options: argparse.Namespace) -> Coroutine[Any, Any, int]:
        module = importlib.import_module(f"{__package__}.{self._name}")
        command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]] = module.main
        return command(options)


def _add_client_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws://... or wss://...")
    group = parser.add_argument_group("connection")
    group.add_argument(
        "-H",
        "--header",
        metavar="NAME:VALUE",
        type=_header,
        action="append",
        default=[],
        help="send this header, too",
    )
    group.add_argument(
        "-S",
        "--subprotocol",
        metavar="NAME",
        action="append",
        default=[],
        help="offer this subprotocol; several in the order of preference",
    )
    group.add_argument("--origin", metavar="ORIGIN", help="say this to be the page's origin")
    group.add_argument(
        "--compress", action="store_true", help="offer compression by permessage-deflate"
    )
    group.add_argument(
        "--proxy", metavar="URL", help="http, https, socks4, socks5; 'env': the environment's"
    )
    group.add_argument(
        "--timeout", type=_positive_seconds, default=10.0, metavar="S", help="to connect (10)"
    )
    group = parser.add_argument_group("TLS")
    group.add_argument("--ca", metavar="FILE", help="trust the authorities in this file, only")
    group.add_argument("--cert", metavar="FILE", help="our certificate, and its key in it")
    group.add_argument("--key", metavar="FILE", help="the key of our certificate")
    group.add_argument("-k", "--insecure", action="store_true", help="take any certificate")


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (127.0.0.1); '': all"
    )
    parser.add_argument(
        "-p", "--port", type=_port, default=9001, help="the port (9001); 0: any that is free"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="the certificate: serves wss")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, if it is not in the same file")
    parser.add_argument(
        "--compress", action="store_true", help="take offers of permessage-deflate"
    )
    group = parser.add_argument_group("the end")
    group.add_argument(
        "--shutdown-spread",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="say CLOSE to the clients over S seconds, so that they do not all come back at once (0)",
    )
    group.add_argument(
        "--shutdown-timeout",
        type=_positive_seconds,
        default=6.0,
        metavar="S",
        help="give each client S seconds to answer CLOSE (6)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def _size(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535, got {text}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds, at least 0, got {text}")
    return number


def _positive_seconds(text: str) -> float:
    number = _seconds(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be seconds, more than 0, got 0")
    return number


# What int() and float() do not take is called by these names.
_positive.__name__ = _size.__name__ = _port.__name__ = "number"
_seconds.__name__ = _positive_seconds.__name__ = "number of seconds"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be NAME:VALUE, got {text!r}")
    return name.strip(), value.strip()


def _target(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise argparse.ArgumentTypeError(f"must be MODULE:NAME, got {text!r}")
    return text

