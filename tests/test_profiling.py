"""The counts and measurements of profiling/: what they make of what the tools print, and that they run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PROFILING = ROOT / "profiling"

# The loop (100) calls buffer_updated (10), that calls deliver (15, and 5 of the mask inlined there), that a listener (300)
# and memcpy (5); the listener reads an attribute (7) and sends (40).
DUMP = """\
version: 1
positions: line
events: Ir
summary: 482

ob=/lib/libpython3.11.so.1.0
fl=ceval.c
fn=_PyEval_EvalFrameDefault
10 100
cob=/picows/picows.cpython-311-x86_64-linux-gnu.so
cfi=picows.c
cfn=__Pyx_CyFunction_Vectorcall_FASTCALL
calls=1 20
10 382

fn=_PyFunction_Vectorcall'2
11 300
cob=/picows/picows.cpython-311-x86_64-linux-gnu.so
cfn=__pyx_f_6picows_6picows_get_msg_type
calls=1 20
11 7
cob=/picows/picows.cpython-311-x86_64-linux-gnu.so
cfn=__Pyx_CyFunction_Vectorcall_FASTCALL'2
calls=1 20
11 40

ob=/picows/picows.cpython-311-x86_64-linux-gnu.so
fn=__Pyx_CyFunction_Vectorcall_FASTCALL
cfn=__pyx_pw_6picows_6picows_15AsyncioProtocol_15buffer_updated
calls=1 30
20 382

fn=__Pyx_CyFunction_Vectorcall_FASTCALL'2
cfn=__pyx_pw_6picows_6picows_11WSTransport_3send
calls=1 30
20 40

fn=__pyx_pw_6picows_6picows_15AsyncioProtocol_15buffer_updated
30 10
cfn=__pyx_f_6picows_6picows_deliver
calls=1 40
30 372

fn=__pyx_f_6picows_6picows_deliver
40 15
fi=mask.h
41 5
fe=picows.c
cob=/lib/libpython3.11.so.1.0
cfn=_PyFunction_Vectorcall'2
calls=1 11
40 347
cob=/lib/x86_64-linux-gnu/libc.so.6
cfn=__memcpy_avx_unaligned_erms
calls=1 1
40 5

fn=__pyx_f_6picows_6picows_get_msg_type
50 7

fn=__pyx_pw_6picows_6picows_11WSTransport_3send
60 40

ob=/lib/x86_64-linux-gnu/libc.so.6
fn=__memcpy_avx_unaligned_erms
1 5
"""

STRACE = """\
access("picows begin 8", F_OK) = -1 ENOENT (No such file or directory)
sendto(8, "a", 1, 0, NULL, 0) = 1
recvfrom(7, "a", 262144, 0, NULL, NULL) = 1
sendto(7, "a", 1, MSG_NOSIGNAL, NULL, 0) = 1
recvfrom(8, "a", 1, 0, NULL, NULL) = 1
access("picows end", F_OK) = -1 ENOENT (No such file or directory)
close(7) = 0
access("picows begin 9", F_OK) = -1 ENOENT (No such file or directory)
epoll_wait(9, [], 2, -1) = 1
recvfrom(8, "a", 262144, 0, NULL, NULL) = 1
access("picows end", F_OK) = -1 ENOENT (No such file or directory)
"""


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    # By its path: newer Pythons have a module `profiling` of their own.
    spec = importlib.util.spec_from_file_location("count_instructions", PROFILING / "count_instructions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_profile_is_split_by_who_works(counting: ModuleType, tmp_path: Path) -> None:
    dump = tmp_path / "callgrind.1"
    dump.write_text(DUMP, encoding="utf-8")
    profile = counting.Profile(dump)
    assert profile.split(is_sender=False) == {"picows": 82, "listener": 300, "loop": 100, "total": 482}
    parts = {name.split()[0].strip(":,"): cost for name, cost in profile.parts(is_sender=False).items()}
    assert {name: cost for name, cost in parts.items() if cost} == {
        "event": 100,
        "listener": 300,
        "attributes": 7,
        "read": 25,
        "mask": 5,
        "send": 40,
        "copy": 5,
    }
    assert profile.split(is_sender=True) == {"picows": 47, "listener": 0, "loop": 435, "total": 482}


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_f_6picows_6picows_11WSTransport_send", "WSTransport.send"),
        ("__pyx_pw_6picows_6picows_11WSTransport_3send", "WSTransport.send"),
        ("__pyx_f_6picows_6picows_checked_connection.isra.0", "checked_connection"),
        ("__pyx_pw_6picows_6picows_10ReadBuffer_11__getbuffer__", "ReadBuffer.__getbuffer__"),
        ("_PyEval_EvalFrameDefault'2", "_PyEval_EvalFrameDefault"),
    ],
)
def test_functions_are_shown_by_the_names_of_the_source(counting: ModuleType, symbol: str, name: str) -> None:
    assert counting.function("picows", symbol).name == name


def test_the_calls_of_the_peer_are_not_counted(counting: ModuleType) -> None:
    assert counting.system_calls_by_row(STRACE) == [{"recvfrom": 1, "sendto": 1}, {"recvfrom": 1}]


@pytest.mark.parametrize("options", [[], ["--own-load"]])
@pytest.mark.skipif(sys.platform != "linux", reason="reuse_port spreads connections on Linux only")
def test_scaling_runs(options: list[str]) -> None:
    small = ["--threads", "1", "2", "--connections", "4", "--burst", "8", "--seconds", "0.1"]
    printed = subprocess.run(
        [sys.executable, "-W", "error", str(PROFILING / "scaling.py"), *small, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stdout
    rows = re.findall(r"^ +(\d) +([\d,]+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+  (.*)$", printed.stdout, re.MULTILINE)
    assert [threads for threads, _, _ in rows] == ["1", "2"], printed.stdout
    for _, rate, connections in rows:
        assert int(rate.replace(",", "")) > 0
        assert sum(map(int, connections.split(", "))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reuse_port spreads connections on Linux only")
def test_scaling_is_judged() -> None:
    """Without a GIL the exit status tells; with one threads take turns, and nobody expects more."""
    options = ["--own-load", "--connections", "2", "--burst", "8", "--seconds", "0.1", "--rounds", "2", "--at-least", "100"]
    judged = subprocess.run(
        [sys.executable, "-W", "error", str(PROFILING / "scaling.py"), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        assert judged.returncode == 0, judged.stdout
        assert "Not judged" in judged.stdout
    else:
        assert judged.returncode == 1, judged.stdout
        assert re.search(r"2 threads do [\d.]+ times the work of 1, expected 100.0 at least", judged.stdout)
