"""The clients of the soak: each place of a load has one connection after the other, for as long as the soak goes on."""

from __future__ import annotations

import asyncio
import json
import traceback

from live_socket import client_tls
from soak_loads import LOADS, Place
from soak_process import Process, process_arguments

# How many connections of each load there are at a time.
PLACES = {
    "echo": 4, "large": 1, "push": 2, "drop": 1, "overrun": 1, "latest": 2, "broadcasts": 3, "topics": 2, "churn": 3,
    "refused": 1, "raw": 1, "reconnect": 1, "coroutines": 2,
}


async def occupy(place: Place, name: str) -> None:
    process = place.process
    while not process.stop.is_set():
        await process.pace.turn(0.3)
        try:
            with process.finding(f"client, {name}, {place.endpoint}"):
                await LOADS[name](place)
        except Exception:
            process.fault(f"client, {name}, {place.endpoint}: {traceback.format_exc()}")
            await asyncio.sleep(1)
        process.counts[name] += 1
        place.next()


async def work(process: Process) -> None:
    servers = json.loads(process.arguments.servers)
    tls = client_tls()
    names = [name for name, places in PLACES.items() for _ in range(places)]
    first = 0x10000 if process.arguments.loop == "asyncio" else 0x20000
    running = [
        asyncio.ensure_future(occupy(Place(process, servers, tls, first + number), name)) for number, name in enumerate(names)
    ]
    process.say("ready", len(running))
    await process.stop.wait()
    _, hanging = await asyncio.wait(running, timeout=2 * process.arguments.patience)
    for task in hanging:
        process.fault(f"a load does not end: {names[running.index(task)]}, {task.get_stack()}")


def main() -> None:
    process = Process(process_arguments(__doc__).parse_args())
    process.run(lambda: work(process))


if __name__ == "__main__":
    main()
