"""Coverage-guided fuzzing of what is C: masking, UTF-8, frames, messages and header fields, by libFuzzer, under sanitizers.

    python fuzz/fuzz_native.py [--runs 10000000] [--targets codec,utf8] [--seed 7]
    python fuzz/fuzz_native.py --coverage    which lines the corpus reaches
    python fuzz/fuzz_native.py --minimize    the smallest corpus that reaches as much, into fuzz/corpus

Every execution is compared with a slow reference in C (fuzz/native/reference.h), whole and cut into pieces; every input that
reached something new is compared once more, with one in Python (fuzz/native/oracle.py). A finding ends the run with the
input in a file, which the printed command repeats.

It needs clang with its runtime libraries and a Python with a library to link to. What is built, and the inputs that are
found, lie in build/fuzz-native-<version>; the corpus of the checkout is read only, but for --minimize.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
CORPUS = CHECKOUT / "fuzz" / "corpus"
NATIVE = CHECKOUT / "fuzz" / "native"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
BUILD = CHECKOUT / "build" / f"fuzz-native-{VERSION}"

# The share of the executions that each has. A stream of frames in pieces takes twenty times as long as a mask.
TARGETS = {"mask": 0.6, "utf8": 0.32, "codec": 0.05, "messages": 0.015, "fields": 0.015}
SMALL, LARGE = 200, 2500  # bytes of an input; few runs are spent on large ones, which are slower
IN_C = ["mask", "utf8"]

# Comparisons are not traced: that takes half of the time, and there are few numbers to guess that the corpus does not have.
COUNTERS = ["-fno-sanitize-coverage=trace-cmp"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
# What is covered is counted for these: no reference, driver or generated code.
MEASURED = ["_native/mask.h", "_native/utf8.h", "_codec.pxd", "_messages.pyx", "_messages.pxd", "upgrade/_fields.pyx"]

MISSING_CLANG = """\
No clang that can link a fuzzer was found (tried: {command}).
On Debian and Ubuntu: apt-get install clang, and libclang-rt-14-dev, whose number is that of `clang --version`.
On Fedora: dnf install clang compiler-rt. gcc has no libFuzzer. CLANG=clang-18 names another program.
What clang said: {said}"""

MISSING_PYTHON = """\
{python} has no library to link to ({place}): it was built without --enable-shared and that of the static one was removed.
On Debian and Ubuntu the package python3-dev has it. PYTHON=python3.12 names another interpreter."""


def run(command: list[str | Path], **options: object) -> str:
    """Its output; when it fails, that is printed and ends us."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))} failed")
    return str(done.stdout)


def find_clang() -> str:
    """The program, after a try: that it is there does not mean that its runtime libraries are."""
    clang = os.environ.get("CLANG", "clang")
    source = "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) { return p && n; }"
    command = [clang, "-x", "c", "-fsanitize=fuzzer,address,undefined", "-o", "/dev/null", "-"]
    try:
        done = subprocess.run(command, input=source, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        sys.exit(MISSING_CLANG.format(command=" ".join(command), said=error))
    if done.returncode:
        sys.exit(MISSING_CLANG.format(command=" ".join(command), said=done.stderr))
    return clang


def link_python() -> list[str]:
    """Arguments that link the library of this interpreter, shared or static."""
    of = sysconfig.get_config_var
    for folder in (of("LIBDIR"), of("LIBPL")):
        library = Path(folder or ".", of("LDLIBRARY") or "")
        if library.is_file():
            whole = ["-Wl,--whole-archive", str(library), "-Wl,--no-whole-archive"]
            how = whole if library.suffix == ".a" else [str(library), f"-Wl,-rpath,{folder}"]
            return [*how, *f"{of('LIBS')} {of('SYSLIBS')}".split()]
    sys.exit(MISSING_PYTHON.format(python=sys.executable, place=of("LDLIBRARY")))


def build(clang: str, folder: Path, coverage: bool) -> None:
    """The targets, into a copy: the modules in place stay what they are."""
    flags = ["--coverage", "-O0"] if coverage else [*SANITIZERS, *COUNTERS]
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("*.so", "corpus", "__pycache__")
    for name in ("picows", "fuzz/native"):
        for old in (tree / name).rglob("*.*"):
            if old.is_file() and old.suffix != ".so":  # what is compiled already is looked at by setup.py
                old.unlink()
        shutil.copytree(CHECKOUT / name, tree / name, ignore=ignored, dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(CHECKOUT / name, tree / name)
    # Only what is fuzzed is built, and what the packages import besides is not there.
    for package in ("picows", "picows/upgrade"):
        (tree / package / "__init__.py").write_text("")

    switches = {"CC": clang, "CFLAGS": " ".join(flags), "LDFLAGS": " ".join(flags), "PICOWS_FUZZ": "1"}
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, env={**os.environ, **switches})

    warnings = ["-Wall", "-Wextra", "-g", *([] if coverage else ["-O2"])]
    include = ["-I", tree / "picows", "-I", tree / "fuzz" / "native"]
    for target in IN_C:
        source = tree / "fuzz" / "native" / f"{target}.c"
        run([clang, "-fsanitize=fuzzer", *flags, *warnings, *include, source, "-o", folder / target], cwd=folder)
    for target in TARGETS.keys() - IN_C:
        names = [f'-DFUZZ_TARGET="fuzz.native.{target}"', f'-DFUZZ_PYTHON="{sys.executable}"']
        python = ["-I", sysconfig.get_path("include"), "-rdynamic", *link_python()]
        driver = tree / "fuzz" / "native" / "driver.c"
        # The driver itself has nothing to cover; the modules that it loads bring their own counters.
        sanitizers = ["-fsanitize=fuzzer"] + ([] if coverage else SANITIZERS)
        run([clang, *sanitizers, *warnings, *names, driver, *python, "-o", folder / target], cwd=folder)


def environment(folder: Path, fast: bool = False) -> dict[str, str]:
    """Fast: a report does not tell where memory was taken, which --repeat does."""
    asan = "detect_leaks=0:allocator_may_return_null=1"  # what the interpreter keeps is no leak of ours
    return {
        **os.environ,
        "PYTHONPATH": str(folder / "tree"),
        "PYTHONMALLOC": "malloc",  # the allocator for small objects would hide overruns
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": asan + (":malloc_context_size=0:quarantine_size_mb=8" if fast else ""),
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def fuzz(target: str, runs: int, largest: int, seed: int) -> tuple[int, int, int]:
    """Executions, seconds, and the edges that are covered in the end."""
    corpus = BUILD / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={runs}", f"-seed={seed}", f"-max_len={largest}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1",
        "-detect_leaks=0", "-len_control=0", "-entropic=0", f"-artifact_prefix={BUILD}/{target}-",
    ]  # fmt: skip
    begun = time.monotonic()
    with (BUILD / f"{target}.log").open("w+") as log:
        command = [BUILD / target, *options, corpus, CORPUS / target]
        done = subprocess.run(command, env=environment(BUILD, fast=True), stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        told = log.read()
    if done.returncode:
        print(told[-6000:])
        for found in re.findall(r"written to (\S+)", told):
            sys.exit(f"A finding. To repeat it: python fuzz/fuzz_native.py --targets {target} --repeat {found}")
        sys.exit(f"{target} ended with status {done.returncode} and no finding")
    executed = int(re.findall(r"stat::number_of_executed_units:\s*(\d+)", told)[0])
    return executed, round(time.monotonic() - begun), int(re.findall(r"cov: (\d+)", told)[-1])


def merge(target: str) -> None:
    """The fewest and smallest inputs that reach all that was reached, into the checkout, beside those that have a name."""
    least = BUILD / "least" / target
    shutil.rmtree(least, ignore_errors=True)
    least.mkdir(parents=True)
    for path in (CORPUS / target).glob("*-*"):  # written by hand; the fuzzer's names are numbers
        shutil.copy(path, least)
    # One input for each edge. Those for how often it is taken are found again within seconds, and are four times as many.
    options = ["-merge=1", "-use_counters=0", f"-max_len={LARGE}", "-detect_leaks=0"]
    sources = [folder for folder in (CORPUS / target, BUILD / "corpus" / target) if folder.exists()]
    run([BUILD / target, *options, least, *sources], env=environment(BUILD))
    shutil.rmtree(CORPUS / target, ignore_errors=True)
    shutil.copytree(least, CORPUS / target)
    print(f"{target}: {len(list(least.iterdir()))} inputs")


def measure(clang: str, targets: list[str]) -> None:
    """Print how many lines of what is fuzzed the corpus of the checkout reaches, and those that it does not."""
    folder = BUILD / "coverage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build(clang, folder, coverage=True)
    for target in targets:
        run([folder / target, "-runs=0", "-detect_leaks=0", CORPUS / target], env=environment(folder), cwd=folder)
    for name, lines in count_lines(clang, folder).items():
        missed = [number for number, reached in sorted(lines.items()) if not reached]
        print(f"{name}: {len(lines) - len(missed)} of {len(lines)} lines; not reached: {missed or 'none'}")


def count_lines(clang: str, folder: Path) -> dict[str, dict[int, bool]]:
    """Of each measured file the lines that hold code, and whether a target has reached them."""
    llvm_cov = run([clang, "-print-prog-name=llvm-cov"]).strip()
    tree = folder / "tree"  # to which the names of sources are relative
    measured: dict[str, dict[int, bool]] = {name: {} for name in MEASURED}
    for counts in folder.rglob("*.gcda"):
        run([llvm_cov, "gcov", "--preserve-paths", "--object-directory", counts.parent, counts], cwd=tree)
        for report in tree.glob("*.gcov"):
            first, *lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
            name = next((name for name in MEASURED if first.endswith("/" + name)), None)
            for line in lines if name else []:
                count, number, source = (part.strip() for part in line.split(":", 2))
                if name and source and count != "-":  # Cython's exits for errors may fall on empty lines
                    measured[name][int(number)] = measured[name].get(int(number), False) or count not in ("#####", "=====")
            report.unlink()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions of all targets together")
    parser.add_argument("--targets", default=",".join(TARGETS), help="some of " + ", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31, help="start of the random numbers")
    parser.add_argument("--repeat", type=Path, metavar="INPUT", help="run one input only")
    parser.add_argument("--coverage", action="store_true", help="count the lines that the corpus reaches, and end")
    parser.add_argument("--minimize", action="store_true", help="take what was found into the corpus, and end")
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    if not set(targets) <= TARGETS.keys():
        parser.error(f"--targets: received {arguments.targets}, expected some of {', '.join(TARGETS)}")
    if arguments.repeat and len(targets) > 1:
        parser.error("--repeat: an input is that of one target, expected its name by --targets")

    clang = find_clang()
    BUILD.mkdir(parents=True, exist_ok=True)
    if arguments.coverage:
        measure(clang, targets)
        return
    build(clang, BUILD, coverage=False)
    if arguments.repeat:
        sys.exit(subprocess.run([BUILD / targets[0], arguments.repeat], env=environment(BUILD), check=False).returncode)
    if arguments.minimize:
        for target in targets:
            merge(target)
        return
    print(f"seed {arguments.seed}")
    for target in targets:
        runs = arguments.runs * TARGETS[target]
        for share, largest in ((0.98, SMALL), (0.02, LARGE)):
            executed, seconds, edges = fuzz(target, round(runs * share), largest, arguments.seed)
            told = f"{executed:>12,} executions of up to {largest} bytes in {seconds} s, {edges} edges, no finding"
            print(f"{target:9} {told}", flush=True)
    # In the environment of the build in place, whose bindings the reference in Python uses.
    checker = [sys.executable, CHECKOUT / "fuzz" / "check_corpus.py", CORPUS, BUILD / "corpus"]
    print(run(checker, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}), end="")


if __name__ == "__main__":
    main()
