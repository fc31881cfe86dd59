"""Routes: which handler a path belongs to, and what the path says to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Handler = Callable[..., Any]

GET = "GET"
WEBSOCKET = "WEBSOCKET"

# What `{name:...}` may be: the pattern, and the type of the value.
_KINDS: dict[str, tuple[str, type]] = {"str": ("[^/]+", str), "int": ("-?[0-9]{1,18}", int)}
_PARAMETER = re.compile(r"\{([^{}]*)\}")


class Route:
    """A handler and the path it answers to: ``Route(path, handler)`` for a WebSocket, or
    ``Route(path, method, handler)``.

    :param path: begins with a slash; ``{name}`` stands for one segment of it, a `str`, and
        ``{name:int}`` for one that is a whole number
    :param method: ``"WEBSOCKET"`` or ``"GET"``
    :param handler: called with what its parameters ask for
    :param name: what the route is called in errors, by default the name of the handler

    Wrong arguments are a `TypeError` or `ValueError`.
    """

    def __init__(
        self,
        path: str,
        method: str | Handler,
        handler: Handler | None = None,
        name: str | None = None,
    ) -> None:
        kind, function = (WEBSOCKET, method) if handler is None else (method, handler)
        if not isinstance(path, str):
            raise TypeError(f"path must be a str, got {path!r}")
        if kind not in (GET, WEBSOCKET):
            raise ValueError(f"method must be 'GET' or 'WEBSOCKET', got {kind!r}")
        if not callable(function):
            raise TypeError(f"the handler of {path!r} must be callable, got {function!r}")
        self.path = path
        self.method: str = str(kind)
        self.handler: Handler = function
        self.name: str = name or getattr(function, "__name__", "") or type(function).__name__
        self.parameters: dict[str, type] = {}  # names in the path, and the types of their values
        self._pattern = re.compile(self._pattern_of(path))

    def _pattern_of(self, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"path must begin with '/', got {path!r}")
        # The odd ones are what stood in braces.
        pieces = _PARAMETER.split(path)
        for at, piece in enumerate(pieces):
            if at % 2:
                pieces[at] = self._pattern_of_parameter(piece)
            elif "{" in piece or "}" in piece:
                raise ValueError(f"a brace has no partner in the path {path!r}")
            else:
                pieces[at] = re.escape(piece)
        return "".join(pieces)

    def _pattern_of_parameter(self, text: str) -> str:
        name, _, kind = text.partition(":")
        if not name.isidentifier() or name in self.parameters:
            raise ValueError(f"{{{text}}} in the path {self.path!r} needs a name of its own")
        if (kind or "str") not in _KINDS:
            known = " or ".join(f"{{{name}:{known}}}" for known in _KINDS)
            raise ValueError(f"{{{text}}} in the path {self.path!r} must be {known}")
        pattern, self.parameters[name] = _KINDS[kind or "str"]
        return f"(?P<{name}>{pattern})"

    def match(self, path: str) -> dict[str, Any] | None:
        """The values of the parameters, None for a path that is not this route's."""
        match = self._pattern.fullmatch(path)
        if match is None:
            return None
        return {name: kind(match[name]) for name, kind in self.parameters.items()}

    def __repr__(self) -> str:
        return f"<Route {self.method} {self.path!r} {self.name}>"


class Router:
    """All routes; a path without parameters goes before those with, then the first that fits."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: list[Route] = list(routes)
        self._fixed: dict[tuple[str, str], Route] = {}
        self._open: list[Route] = []
        for route in self.routes:
            if not isinstance(route, Route):
                raise TypeError(f"routes must be Route objects, got {route!r}")
            if route.parameters:
                self._open.append(route)
            elif (route.method, route.path) in self._fixed:
                raise ValueError(f"two routes for {route.method} {route.path!r}")
            else:
                self._fixed[route.method, route.path] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, Any]] | None:
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for route in self._open:
            if route.method == method:
                parameters = route.match(path)
                if parameters is not None:
                    return route, parameters
        return None
