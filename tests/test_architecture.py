"""The modules depend on each other one way only, so that each can be read and tested without those above it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "picows"

# Who may import whom. The compiled module `picows` consists of picows.pyx and what it includes.
ARROWS: dict[str, set[str]] = {
    "arguments": set(),
    "errors": set(),
    "url": {"errors"},
    "_fields": set(),
    "_tracebacks": set(),
    "deflate": {"errors"},
    "upgrade": {"_fields", "deflate", "errors", "url"},
    "_codec": set(),
    "_messages": {"_codec"},
    "tls": set(),
    "picows": {"arguments", "_codec", "_messages", "_tracebacks", "deflate", "errors", "tls", "upgrade"},
    "proxy": {"errors", "url"},
    "api": {"arguments", "deflate", "errors", "picows", "proxy", "upgrade", "url"},
    "__init__": {"api", "deflate", "errors", "picows", "upgrade", "url"},
}

IMPORT = re.compile(
    r"^\s*(?:from\s+\.(?P<relative>\w+)\s+c?import|from\s+\.\s+c?import\s+(?P<sibling>\w+)"
    r"|from\s+picows\.(?P<absolute>\w+)\s+c?import|from\s+picows\s+c?import\s+(?P<member>\w+)"
    r"|c?import\s+picows\.(?P<plain>\w+))",
    re.MULTILINE,
)


# What only a type checker reads is no dependency.
FOR_TYPES_ONLY = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+.*\n|\n)+", re.MULTILINE)


def sources_of(module: str) -> list[Path]:
    compiled = list(PACKAGE.glob("*.pxi")) if module == "picows" else []
    return compiled + [path for path in PACKAGE.glob(f"{module}.*") if path.suffix in (".py", ".pyx", ".pxd", ".pyi")]


def imports_of(module: str) -> set[str]:
    """The modules of the package that `module` imports or cimports, its own interface file apart."""
    texts = (FOR_TYPES_ONLY.sub("", path.read_text(encoding="utf-8")) for path in sources_of(module))
    found = (match for text in texts for match in IMPORT.finditer(text))
    return {next(filter(None, match.groups())) for match in found} - {module}


def test_every_module_has_its_place() -> None:
    modules = {path.name.split(".")[0] for path in PACKAGE.iterdir() if path.suffix in (".py", ".pyx")}
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
    assert imports_of("api") >= {"picows", "upgrade", "url"}
    assert imports_of("picows") >= {"_codec", "errors", "upgrade"}


def test_the_public_interface_needs_no_c_of_ours() -> None:
    interface = (PACKAGE / "picows.pxd").read_text(encoding="utf-8")
    code = re.sub(r'""".*?"""|#.*', "", interface, flags=re.DOTALL)
    assert "cdef class WSFrame" in code
    assert not re.search(r"_native|cdef extern|\bcimport\b", code)


@pytest.mark.parametrize("module", ["errors", "url", "upgrade", "deflate", "_codec", "_fields", "_messages"])
def test_what_knows_bytes_only_knows_no_event_loop(module: str) -> None:
    for path in sources_of(module):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from)\s+(asyncio|socket|ssl)\b", text, re.MULTILINE)
