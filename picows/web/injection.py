"""Handlers and hooks are called with what their parameters ask for: by annotation, or by a name in the path."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

# What a class or a name is filled with, out of whatever a call is about.
Source = Callable[[Any], Any]


class Injection:
    """What the parameters of a function ask for.

    :param function: the handler or hook
    :param where: how errors call it
    :param by_class: the classes that a parameter may be annotated with
    :param by_name: the names that a parameter may have, and the types of their values
    :param value_of: the value for such a name

    :raises TypeError: nothing fills a parameter that has no default
    """

    def __init__(
        self,
        function: Callable[..., Any],
        where: str,
        by_class: Mapping[type, Source],
        by_name: Mapping[str, type],
        value_of: Callable[[str], Source],
    ) -> None:
        self.classes: set[type] = set()  # what it asks for
        self._sources: list[tuple[str, Source]] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            name, annotation = parameter.name, annotation_of(function, parameter)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise TypeError(f"{where}: the parameter {name!r} must not be positional only")
            if name in by_name:
                check_annotation(annotation, name, by_name[name], where)
                self._sources.append((name, value_of(name)))
            elif isinstance(annotation, type) and annotation in by_class:
                self.classes.add(annotation)
                self._sources.append((name, by_class[annotation]))
            elif parameter.default is parameter.empty:
                raise TypeError(
                    f"{where}: nothing fills the parameter {described(name, annotation)}; "
                    f"{what_there_is(by_class, by_name)}"
                )

    def arguments(self, subject: Any) -> dict[str, Any]:
        return {name: source(subject) for name, source in self._sources}


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Evaluated if it is a string, which stays one if that cannot be done."""
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):
        # A method, or an object that can be called.
        function = getattr(function, "__func__", None) or type(function).__call__
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except Exception:
        # It names what is imported for type checkers only, for example.
        return annotation


def check_annotation(annotation: Any, name: str, kind: type, where: str) -> None:
    if isinstance(annotation, type) and annotation not in (kind, object, inspect.Parameter.empty):
        raise TypeError(
            f"{where}: the path fills the parameter {described(name, annotation)}, "
            f"with {kind.__name__}"
        )


def described(name: str, annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return f"{name!r}, which has no annotation"
    if isinstance(annotation, str):
        return f"{name!r}, whose annotation {annotation!r} cannot be evaluated"
    return f"{name!r}, annotated {getattr(annotation, '__name__', annotation)}"


def what_there_is(by_class: Mapping[type, Source], by_name: Mapping[str, type]) -> str:
    classes = ", ".join(cls.__name__ for cls in by_class)
    names = ", ".join(by_name) or "none"
    return f"there are the classes {classes}, and the names in the path: {names}"
