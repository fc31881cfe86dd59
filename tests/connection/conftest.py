from __future__ import annotations

import logging

import pytest


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays of a ws_reconnect that logs to picows.delays, each when it begins."""
    found: list[float] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert isinstance(record.args, tuple)
            found.append(float(record.args[-1]))  # type: ignore[arg-type]

    logger = logging.getLogger("picows.delays")
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "handlers", [Handler()])
    return found
