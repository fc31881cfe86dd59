"""``picows serve``: an application in one process, or in several that are replaced when they die, or their code changes."""

from __future__ import annotations

import argparse

from .serving import bind, load, serve, url_of
from .workers import Workers


async def main(options: argparse.Namespace) -> int:
    several = options.workers > 1 or options.reload
    target = None if several else load(options.target)
    with bind(options) as sock:
        number = f" by {options.workers} workers" if options.workers > 1 else ""
        print(f"Listening on {url_of(sock, options)}{number}", flush=True)
        if several:
            return await Workers(options, sock).run()
        return await serve(target, sock, options)
