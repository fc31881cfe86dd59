"""The command line, ``picows`` and ``python -m picows``: connect, echo, ping, bench and serve.

Exit codes: 0 when all went well, 1 when it did not (the reason is one line on stderr), 2 for wrong
arguments, 130 and 143 for a client that Ctrl+C or SIGTERM has ended.
"""

from .command import main

__all__ = ["main"]
