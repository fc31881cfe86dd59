"""The stubs name what the compiled modules have. Types are mypy's business, which reads all of it in `make types`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
STUBS = sorted((ROOT / "picows").rglob("*.pyi"))
# What stubtest does not ask for either.
ALLOWED = [
    re.compile(line)
    for line in (ROOT / "tests" / "typing" / "stubtest-allowlist.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            yield prefix + node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((prefix + target.id, node) for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{prefix}{node.name}.")


def in_stub(stub: Path) -> dict[str, ast.stmt]:
    """Its definitions by name, without protocols, which are for type checkers only."""
    found = definitions(ast.parse(stub.read_text(encoding="utf-8")).body, "")
    return {name: node for name, node in found if not re.match(r"_[A-Z]", name)}


def in_module(module: ModuleType) -> Iterator[str]:
    """The public names that it defines itself, and those of its classes that no base has."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        yield name
        if inspect.isclass(value):
            inherited = {attribute for base in value.__mro__[1:] for attribute in vars(base)}
            yield from (f"{name}.{own}" for own in vars(value) if not own.startswith("_") and own not in inherited)


def parameters_in_stub(function: Any) -> list[tuple[str, bool]]:
    """Their names, and which may be left out."""
    arguments = function.args
    by_position = [*arguments.posonlyargs, *arguments.args]
    optional = [False] * (len(by_position) - len(arguments.defaults)) + [True] * len(arguments.defaults)
    optional += [default is not None for default in arguments.kw_defaults]
    return list(zip((argument.arg for argument in [*by_position, *arguments.kwonlyargs]), optional))


def parameters_in_module(function: Any) -> list[tuple[str, bool]]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [each for each in inspect.signature(function).parameters.values() if each.kind not in variable]
    return [(each.name, each.default is not each.empty) for each in parameters]


@pytest.fixture(params=STUBS, ids=lambda stub: str(stub.relative_to(ROOT)))
def stub(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def module(stub: Path) -> ModuleType:
    return importlib.import_module(".".join(stub.relative_to(ROOT).with_suffix("").parts))


def allowed(module: ModuleType, name: str) -> bool:
    return any(pattern.fullmatch(f"{module.__name__}.{name}") for pattern in ALLOWED)


def found(module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def test_the_stub_has_every_public_name(stub: Path, module: ModuleType) -> None:
    # Of a private class stubtest is told to leave out the class, and so its members.
    names = (name for name in in_module(module) if not any(allowed(module, part) for part in (name, name.split(".")[0])))
    assert set(names) - set(in_stub(stub)) == set()


def test_the_module_has_every_name_of_the_stub(stub: Path, module: ModuleType) -> None:
    names = [name for name in in_stub(stub) if not allowed(module, name)]
    # Attributes that objects have, and their classes not, are told by annotations.
    declared = {name for name, node in in_stub(stub).items() if isinstance(node, ast.AnnAssign) and "." in name}
    assert names
    assert [name for name in names if found(module, name) is None and name not in declared] == []


def test_parameters_are_those_of_the_stub(stub: Path, module: ModuleType) -> None:
    """Of what tells its parameters at run time; dunders do not, nor do classes."""
    for name, node in in_stub(stub).items():
        function = found(module, name)
        if isinstance(node, FUNCTIONS) and not node.decorator_list and not name.endswith("__"):
            assert parameters_in_module(function) == parameters_in_stub(node), name
