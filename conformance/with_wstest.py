"""A runner for `make conformance` where wstest is installed, the command of the Autobahn testsuite, or is in a container.

    python3 conformance/with_wstest.py server URL [options]                    the echo server there is tested
    python3 conformance/with_wstest.py client [options] -- COMMAND ...         COMMAND is an echo client; it is given
                                                                               the fuzzing server's URL as AUTOBAHN_URL

The variable WSTEST holds the command, if it is another one than wstest. docs/conformance.rst shows one for docker.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The groups of permessage-deflate have 18 cases each; --quick leaves out those of 1000 large messages, all but 3.
SLOW = ["1[23].*.[235-9]", "1[23].*.1[02-8]"]
SECONDS_TO_START = 30.0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("server", "client"))
    parser.add_argument("url", nargs="?", help="of the echo server")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="such as 9.* or 7.1.5")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="PATTERN")
    parser.add_argument("--quick", action="store_true", help="leave out the slow cases")
    parser.add_argument("--out", type=Path, default=Path("build", "autobahn"), help="directory of the reports")
    parser.add_argument("--port", type=int, default=0, help="of the fuzzing server; 0 for any free port")
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = parser.parse_args(argv[:end])
    arguments.command = argv[end + 1 :]
    if arguments.side == "server" and (arguments.url is None or arguments.command):
        parser.error("server needs a URL and no COMMAND")
    if arguments.side == "client" and (arguments.url is not None or not arguments.command):
        parser.error("client needs a COMMAND behind -- and no URL")
    return arguments


def start_wstest(mode: str, spec: dict[str, Any], out: Path) -> subprocess.Popen[bytes]:
    (out / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [*shlex.split(os.environ.get("WSTEST", "wstest")), "-m", mode, "-s", str(out / "spec.json"), "-u", "0"]
    # What is meant for our Python would confuse the one of wstest, which is Python 2.7.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with open(out / "wstest.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**environment, "PYTHONUNBUFFERED": "1"})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_listening(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


def run_server(url: str, spec: dict[str, Any], out: Path) -> list[str]:
    """Test the echo server: what went wrong, other than in the cases."""
    spec["servers"] = [{"url": url, "agent": "server"}]
    status = start_wstest("fuzzingclient", spec, out).wait()
    return [f"wstest ended with status {status}"] if status else []


def run_client(command: list[str], port: int, spec: dict[str, Any], out: Path) -> list[str]:
    spec["url"] = f"ws://127.0.0.1:{port}"
    with start_wstest("fuzzingserver", spec, out) as wstest:
        try:
            if not wait_listening(port, wstest):
                return ["wstest did not start"]
            status = subprocess.run(command, env={**os.environ, "AUTOBAHN_URL": spec["url"]}, check=False).returncode
        finally:
            wstest.terminate()
    return [f"the client ended with status {status}"] if status else []


def read_results(out: Path) -> dict[str, dict[str, str]]:
    """By case. One that was planned, and about which nothing was reported, has failed."""
    log = (out / "wstest.log").read_text(encoding="utf-8", errors="replace")
    planned = re.search(r"^Cases = (\[.*\])$", log, re.MULTILINE)
    if not planned:
        sys.exit(f"wstest did not run:\n{log[-3000:]}")
    index = out / "index.json"
    reported: dict[str, Any] = {}
    for cases in json.loads(index.read_text(encoding="utf-8")).values() if index.exists() else ():
        reported.update(cases)
    results = {}
    for case in ast.literal_eval(planned[1]):
        result = reported.get(case, {"behavior": "NO RESULT", "behaviorClose": "NO RESULT"})
        results[case] = {"behavior": result["behavior"], "behaviorClose": result["behaviorClose"], "reason": ""}
        if "reportfile" in result:
            report = json.loads((out / result["reportfile"]).read_text(encoding="utf-8"))
            bad_close = result["behaviorClose"] not in ("OK", "INFORMATIONAL")
            results[case]["reason"] = report["resultClose" if bad_close else "result"]
    return results


def main() -> int:
    arguments = parse(sys.argv[1:])
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    exclude = arguments.exclude + (SLOW if arguments.quick else [])
    spec = {"cases": arguments.cases, "exclude-cases": exclude, "outdir": str(out)}
    try:
        if arguments.side == "server":
            problems = run_server(arguments.url, spec, out)
        else:
            problems = run_client(arguments.command, arguments.port or free_port(), spec, out)
    except FileNotFoundError as error:
        print(f"with_wstest: there is no command {error.filename}; the variable WSTEST may name another", file=sys.stderr)
        return 2
    summary = {"results": read_results(out), "problems": problems}
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
