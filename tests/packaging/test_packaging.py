from __future__ import annotations

import json
import sysconfig
import tarfile
import zipfile

import pytest

import picows
from tests.packaging.installation import CHECKOUT, FILES, FOLDERS, Installation

pytestmark = pytest.mark.timeout(600)  # a busy machine compiles slowly

BUILT = (".so", ".pyd", ".o", ".c", ".html", ".pyc")


def test_the_compiled_modules_are_the_installed_ones(installation: Installation) -> None:
    names = ("_messages", "_streams", "picows", "upgrade._fields", "web._stream")
    imports = ", ".join(f"picows.{name}" for name in names)
    printed = installation.run("-c", f"import {imports}; print(*(module.__file__ for module in ({imports})))")
    for file, name in zip(printed.split(), names):
        path = installation.site.joinpath("picows", *name.split("."))
        assert file == str(path) + sysconfig.get_config_var("EXT_SUFFIX")


def test_every_public_name_comes_with_the_installed_package(installation: Installation) -> None:
    printed = installation.run("-c", "from picows import *; import picows; print(*sorted(picows.__all__))")
    assert printed.split() == sorted(picows.__all__)


def test_the_wheel_holds_what_cython_and_type_checkers_read(installation: Installation) -> None:
    with zipfile.ZipFile(installation.wheel) as wheel:
        names = set(wheel.namelist())
    sources = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "picows").rglob("*")
        if path.suffix in (".h", ".pxd", ".pxi", ".py", ".pyi", ".pyx") or path.name == "py.typed"
    }
    assert {"picows/picows.pxd", "picows/picows.pyi", "picows/py.typed"} <= sources
    assert sources <= names
    extensions = {name for name in names if name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))}
    compiled = {
        "picows/_asgi",
        "picows/_messages",
        "picows/_streams",
        "picows/picows",
        "picows/upgrade/_fields",
        "picows/web/_stream",
        "picows/websockets/asyncio/connection",
    }
    assert {name.split(".")[0] for name in extensions} == compiled
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata - extensions == sources


def test_the_wheel_shows_no_more_of_the_codec_than_the_connection_needs(installation: Installation) -> None:
    """What makes it callable by tests and fuzzers stands in the bindings of the tests."""
    script = "import json, picows._messages as m; print(json.dumps([name for name in vars(m) if not name.startswith('__')]))"
    assert json.loads(installation.run("-c", script)) == ["MessageAssembler"]
    installation.run("-c", "import importlib.util; assert importlib.util.find_spec('picows._codec') is None")


def test_the_sdist_holds_sources_only_and_all_that_its_tests_need(installation: Installation) -> None:
    with tarfile.open(installation.sdist) as sdist:
        names = {member.name.split("/", 1)[1] for member in sdist if member.isfile()}
    paths = (path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*") if path.is_file())
    sources = {str(path.relative_to(CHECKOUT)) for path in paths if "_build" not in path.parts and path.suffix not in BUILT}
    assert {"tests/codec/bindings.pyx", "tests/streams/bindings.pyx", "fuzz/damage.py", "profiling/wire.py"} <= sources
    assert {*sources, *FILES} <= names
    # Pages of examples are sources, and Cython's reports are not. Nor is its C, but ours.
    pages = {"examples/market_page.html", "examples/web_chat.html"}
    written = {"examples/benchmark_c/readers.c", "examples/benchmark_c/send_loop.c", "fuzz/crash.c"}
    written |= {f"fuzz/native/{name}.c" for name in ("driver", "mask", "utf8")}
    assert {name for name in names if name.endswith(BUILT)} <= pages | written


def test_the_metadata_names_the_version_and_the_dependencies(installation: Installation) -> None:
    printed = installation.run(
        "-c",
        "from importlib.metadata import metadata, requires, version\n"
        "print(version('picows'), metadata('picows')['Requires-Python'])\n"
        "print(*[requirement for requirement in requires('picows') if 'extra' not in requirement])",
    )
    version, python, *requirements = printed.split()
    assert version == picows.__version__
    assert python == ">=3.9"
    assert [text.split(">")[0] for text in requirements] == ["httptools", "multidict", "python-socks[asyncio]"]
