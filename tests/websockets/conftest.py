from __future__ import annotations

import os
import sys

import pytest

from tests.connection.networks import Network

# The tests run a second time in a process of their own in which the package `websockets` cannot be imported.
WITHOUT = "PICOWS_TEST_WITHOUT_WEBSOCKETS"
if os.environ.get(WITHOUT):
    sys.modules["websockets"] = None  # type: ignore[assignment]


@pytest.fixture
def net() -> Network:
    """The plainest network; the marks of networks.py replace it by others."""
    return Network()
