from __future__ import annotations

import pytest

from tests.connection.networks import Network


@pytest.fixture
def net() -> Network:
    """The plainest network; the marks of networks.py replace it by others."""
    return Network()
