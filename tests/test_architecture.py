"""The modules depend on each other one way only, so that each can be read and tested without those above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "picows"

# Who may import whom. The compiled module `picows` consists of picows.pyx and what it includes. A package is its
# __init__.py, and each of its parts a module as any other; nobody outside imports a part.
ARROWS: dict[str, set[str]] = {
    "arguments": set(),
    "_members": set(),
    "busy_poll": set(),
    "errors": set(),
    "url": {"errors"},
    "_tracebacks": set(),
    "_deadline": set(),
    "deflate": {"errors"},
    "upgrade._fields": set(),
    "upgrade.grammar": set(),
    "upgrade.messages": {"upgrade.grammar"},
    "upgrade.server": {"deflate", "errors", "upgrade._fields", "upgrade.grammar", "upgrade.messages"},
    "upgrade.client": {"deflate", "errors", "upgrade._fields", "upgrade.grammar", "upgrade.messages", "url"},
    "upgrade": {"upgrade.client", "upgrade.grammar", "upgrade.messages", "upgrade.server"},
    "_codec": set(),
    "_messages": {"_codec"},
    "stats": set(),
    "tls": set(),
    "picows": {"arguments", "_codec", "_messages", "_tracebacks", "deflate", "errors", "stats", "tls", "upgrade"},
    "_streams": {"arguments", "picows"},
    "_asgi": {"_streams", "picows"},
    "_tunnel": {"url"},
    "proxy": {"_deadline", "_tunnel", "errors", "url"},
    "settings": {"arguments", "deflate", "picows"},
    "client": {"arguments", "deflate", "errors", "picows", "proxy", "settings", "upgrade", "url"},
    "reconnect": {"arguments", "client", "errors", "picows", "settings", "url"},
    "server": {"arguments", "deflate", "picows", "proxy", "settings", "stats", "upgrade"},
    "adopt": {"deflate", "picows", "server", "settings"},
    "_broker": set(),
    "_envelope": {"picows"},
    "_topic": {"_envelope", "errors", "picows"},
    "_subscriptions": {"_members", "_topic", "picows"},
    "_brokered": {"_broker", "_envelope", "_subscriptions", "_topic", "errors", "picows"},
    "topics": {"_broker", "_brokered", "_envelope", "_members", "_subscriptions", "_topic", "arguments", "errors", "picows"},
    "brokers.outbox": {"errors"},
    "brokers.nats": {"brokers.outbox", "errors"},
    "brokers.redis": {"arguments", "brokers.outbox", "errors"},
    "brokers": {"_broker"},
    "uvicorn": {"_asgi", "deflate", "errors", "picows", "settings", "upgrade"},
    "api": {"client", "picows", "proxy", "server", "settings", "upgrade"},
    "web.status": set(),
    "web.exceptions": {"web.status"},
    "web.jsons": set(),
    "web.injection": set(),
    "web.routing": set(),
    "web._stream": {"_streams", "picows", "web.exceptions", "web.status"},
    "web.exchange": {"upgrade"},
    "web.responses": {"upgrade", "web.jsons"},
    "web.websocket": {"upgrade", "web.exceptions", "web.exchange", "web.jsons", "web.status"},
    "web.dispatch": {
        "upgrade", "web.exceptions", "web.exchange", "web.injection", "web.responses", "web.routing", "web.status", "web.websocket",
    },
    "web.asgi": {"upgrade", "web.dispatch", "web.exceptions", "web.exchange", "web.status", "web.websocket"},
    "web.serving": {
        "picows", "server", "upgrade",
        "web._stream", "web.dispatch", "web.exceptions", "web.exchange", "web.responses", "web.status", "web.websocket",
    },
    "web.app": {"server", "web.asgi", "web.dispatch", "web.routing", "web.serving"},
    "web": {
        "upgrade", "web.app", "web.exceptions", "web.exchange", "web.routing", "web.status", "web.websocket",
    },
    "websockets._place": set(),
    "websockets._types": set(),
    "websockets.version": set(),
    "websockets.exceptions": {"websockets._types"},
    "websockets.datastructures": {"websockets._types", "websockets.exceptions"},
    "websockets.frames": {"websockets._types", "websockets.exceptions"},
    "websockets.http11": {"__init__", "websockets._types", "websockets.datastructures"},
    "websockets.protocol": {"websockets._place", "websockets._types"},
    "websockets.typing": set(),
    "websockets.uri": {"websockets._types", "websockets.exceptions"},
    "websockets.headers": {"websockets.exceptions", "websockets.typing"},
    "websockets._options": {"arguments", "deflate", "settings", "websockets.datastructures", "websockets.exceptions"},
    "websockets._errors": {
        "errors", "proxy", "upgrade", "websockets.datastructures", "websockets.exceptions", "websockets.http11",
    },
    "websockets._proxy": {"arguments", "errors", "proxy", "url", "websockets.exceptions"},
    "websockets.asyncio.connection": {
        "_streams", "picows", "websockets._errors", "websockets.datastructures", "websockets.exceptions", "websockets.frames",
        "websockets.http11", "websockets.protocol",
    },
    "websockets.asyncio.client": {
        "_deadline", "client", "errors", "picows", "proxy", "settings", "upgrade", "url", "websockets._errors",
        "websockets._options", "websockets._proxy", "websockets.asyncio.connection", "websockets.datastructures",
        "websockets.exceptions", "websockets.headers", "websockets.http11", "websockets.typing", "websockets.uri",
    },
    "websockets.asyncio._handshake": {
        "upgrade", "websockets.asyncio.connection", "websockets.datastructures", "websockets.exceptions", "websockets.headers",
        "websockets.http11", "websockets.typing",
    },
    "websockets.asyncio._basic_auth": {
        "websockets.asyncio.connection", "websockets.exceptions", "websockets.headers", "websockets.http11",
    },
    "websockets.asyncio.server": {
        "picows", "server", "websockets._options", "websockets.asyncio._basic_auth", "websockets.asyncio._handshake",
        "websockets.asyncio.connection", "websockets.exceptions", "websockets.frames", "websockets.headers", "websockets.http11",
        "websockets.protocol", "websockets.typing",
    },
    "websockets.asyncio.router": {"websockets.asyncio._handshake", "websockets.asyncio.server", "websockets.http11"},
    "websockets.asyncio": set(),
    "websockets.extensions": set(),
    "websockets.extensions.permessage_deflate": set(),
    "websockets": {"websockets._place", "websockets.version"},
    "__init__": {
        "adopt", "busy_poll", "client", "deflate", "errors", "picows", "reconnect", "server", "stats", "topics", "upgrade", "url",
    },
    "cli.terminal": set(),
    "cli.lines": {"cli.terminal"},
    "cli.running": {"errors"},
    "cli.arguments": {"__init__"},
    "cli.dialing": {"__init__"},
    "cli.serving": {"__init__"},
    "cli.connect": {"__init__", "cli.dialing", "cli.lines", "cli.terminal"},
    "cli.ping": {"__init__", "cli.dialing"},
    "cli.bench": {"__init__", "cli.dialing", "cli.running", "cli.terminal"},
    "cli.echo": {"__init__", "cli.serving"},
    "cli.workers": {"__init__", "cli.running", "cli.serving"},
    "cli.serve": {"cli.serving", "cli.workers"},
    "cli.command": {"cli.arguments", "cli.running"},
    "cli": {"cli.command"},
    "__main__": {"cli"},
}  # fmt: skip

# Which parts of the compiled module may use the functions, classes and values of which others; in the order in which
# picows.pyx includes them. (The classes that picows.pxd declares, and those that picows.pyx does, are no part's own.)
PARTS: dict[str, set[str]] = {
    "memory": set(),
    "options": {"memory"},
    "connection": {"memory", "options"},
    "frame": {"memory"},
    "listener": set(),
    "close_handshake": set(),
    "timers": {"connection"},
    "states": {"connection", "frame", "timers"},
    "failure": set(),
    "flow": {"failure", "listener", "states"},
    "stats": {"connection", "flow"},
    "send": {"connection", "flow", "frame", "memory"},
    "compression": {"connection", "flow", "send"},
    "latest": {"compression", "connection", "send", "timers"},
    "closing": {"connection", "failure", "flow", "frame", "latest", "send", "states", "timers"},
    "marks": {"closing", "connection", "flow", "listener", "memory", "options", "send"},
    "conflation": {"compression", "connection", "flow", "latest", "marks", "send"},
    "broadcast": {"compression", "conflation", "connection", "flow", "latest", "marks", "send"},
    "keepalive": {"closing", "connection", "listener", "marks", "options", "send", "timers"},
    "receive": {"closing", "connection", "failure", "frame", "keepalive", "marks", "memory", "send", "states"},
    "registry": {"closing", "connection", "marks", "stats", "timers"},
    "handshake": {"closing", "connection", "failure", "keepalive", "memory", "receive", "registry", "send", "states", "timers"},
    "protocol": {
        "closing", "conflation", "connection", "failure", "handshake", "marks", "memory", "options", "receive", "registry",
        "states", "timers",
    },
    "adopt": {"closing", "handshake", "marks", "memory", "protocol", "send"},
    "transport": {
        "close_handshake", "closing", "compression", "conflation", "connection", "flow", "keepalive", "marks", "send", "stats",
        "timers",
    },
}  # fmt: skip

PACKAGES = sorted({module.rpartition(".")[0] for module in ARROWS if "." in module})

IMPORT = re.compile(
    r"^[ \t]*(?:from[ ]+(?P<source>[.\w]+)[ ]+)?c?import\b[ ]*(?P<names>\([^)]*\)|[^\n(]+)",
    re.MULTILINE,
)


# What only a type checker reads, all stubs included, is no dependency.
FOR_TYPES_ONLY = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+.*\n|\n)+", re.MULTILINE)


def sources_of(module: str) -> list[Path]:
    path = PACKAGE.joinpath(*module.split("."))
    if module in PACKAGES:
        return [path / "__init__.py"]
    compiled = list(PACKAGE.glob("_core/*.pxi")) if module == "picows" else []
    return compiled + [path for path in path.parent.glob(f"{path.name}.*") if path.suffix in (".py", ".pyx", ".pxd")]


def module_in(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts)


def imports_of(module: str) -> set[str]:
    """The modules of the package that `module` imports or cimports, its own interface file apart."""
    texts = (FOR_TYPES_ONLY.sub("", path.read_text(encoding="utf-8")) for path in sources_of(module))
    return {found for text in texts for found in imports_in(text, module)} - {module}


def imports_in(text: str, module: str) -> Iterator[str]:
    package = f"picows.{module if module in PACKAGES else module.rpartition('.')[0]}".rstrip(".")
    for match in IMPORT.finditer(re.sub(r"#.*", "", text)):
        names = [name.split()[0] for name in match["names"].strip("()").split(",") if name.strip()]
        if match["source"]:
            source = resolve_name(match["source"], package)
            names = [name if module_named(name) in ARROWS else source for name in (f"{source}.{name}" for name in names)]
        yield from (module_named(name) for name in names if name.split(".")[0] == "picows")


def module_named(name: str) -> str:
    """A module as `ARROWS` calls it, by its full name."""
    return "__init__" if name == "picows" else name.removeprefix("picows.")


def test_every_module_has_its_place() -> None:
    modules = {module_in(path) for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd")}
    assert modules == set(ARROWS)


@pytest.mark.parametrize("module", ARROWS)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    assert imports_of(module) <= ARROWS[module]


def test_there_is_no_cycle() -> None:
    placed: set[str] = set()
    while len(placed) < len(ARROWS):
        ready = {module for module, below in ARROWS.items() if module not in placed and below <= placed}
        assert ready, f"a cycle among {sorted(set(ARROWS) - placed)}"
        placed |= ready


def test_the_imports_are_found() -> None:
    assert imports_of("client") >= {"picows", "upgrade", "url"}
    assert imports_of("picows") >= {"_codec", "errors", "upgrade"}
    assert imports_of("upgrade.server") >= {"deflate", "errors", "upgrade._fields", "upgrade.grammar"}


# `picows.websockets` shows it when it is asked for.
@pytest.mark.parametrize("package", [package for package in PACKAGES if package != "websockets"])
def test_a_package_does_nothing_but_show_what_its_parts_hold(package: str) -> None:
    opening, *statements = ast.parse(PACKAGE.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(opening, ast.Expr)
    if not statements:
        return
    *imports, public = statements
    assert all(isinstance(statement, ast.ImportFrom) for statement in imports)
    assert isinstance(public, ast.Assign)
    assert ast.unparse(public.targets[0]) == "__all__"


def test_the_public_interface_needs_no_c_of_ours() -> None:
    interface = (PACKAGE / "picows.pxd").read_text(encoding="utf-8")
    code = re.sub(r'""".*?"""|#.*', "", interface, flags=re.DOTALL)
    assert "cdef class WSFrame" in code
    assert not re.search(r"_native|cdef extern|\bcimport\b", code)


KNOW_BYTES_ONLY = ["errors", "url", "deflate", "_codec", "_messages", *(name for name in ARROWS if name.startswith("upgrade"))]


@pytest.mark.parametrize("module", KNOW_BYTES_ONLY)
def test_what_knows_bytes_only_knows_no_event_loop(module: str) -> None:
    for path in sources_of(module):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from)\s+(asyncio|socket|ssl)\b", text, re.MULTILINE)


def part(name: str) -> str:
    """Its code, without comments and strings."""
    text = (PACKAGE / "_core" / f"{name}.pxi").read_text(encoding="utf-8")
    return re.sub(r'f?"[^"\n]*"|#.*', "", re.sub(r'""".*?"""', "", text, flags=re.DOTALL))


def names_in(text: str) -> set[str]:
    """What a part defines for others."""
    names = set(re.findall(r"^(?:cdef class|class|cdef enum|async def|def) (\w+)", text, re.MULTILINE))
    names |= set(re.findall(r"^cdef (?!class|enum)[^\n=]*?(\w+)\(", text, re.MULTILINE))
    names |= set(re.findall(r"^cdef (?!class|enum)[^\n(]*?(\w+)(?:\s*=|$)", text, re.MULTILINE))
    for members in re.findall(r"^cdef enum(?: \w+)?:\n((?:[ \t]+.*\n|\n)+)", text, re.MULTILINE):
        names |= set(re.findall(r"^\s+(\w+)", members, re.MULTILINE))
    return names


def declared_for_all() -> set[str]:
    public = (PACKAGE / "picows.pxd").read_text(encoding="utf-8")
    forward = (PACKAGE / "picows.pyx").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:cdef class|cpdef enum) (\w+)", public + forward, re.MULTILINE))


def test_the_parts_are_included_in_the_order_of_their_arrows() -> None:
    included = re.findall(r'^include "_core/(\w+)\.pxi"', (PACKAGE / "picows.pyx").read_text(encoding="utf-8"), re.MULTILINE)
    assert included == list(PARTS)
    assert {path.stem for path in (PACKAGE / "_core").iterdir()} == set(PARTS)
    for at, name in enumerate(included):
        assert PARTS[name] <= set(included[:at]), name


@pytest.mark.parametrize("name", PARTS)
def test_a_part_uses_only_what_lies_below_it(name: str) -> None:
    home = {defined: other for other in PARTS for defined in names_in(part(other)) - declared_for_all()}
    used = {word for word in re.findall(r"(?<![.\w])[A-Za-z_]\w*", part(name)) if word in home}
    assert {home[word] for word in used} - {name} == PARTS[name], sorted(used)


def test_a_part_is_short() -> None:
    for path in (PACKAGE / "_core").iterdir():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path.name
