from __future__ import annotations

import pytest

from tests.connection.networks import Network


@pytest.fixture
def net() -> Network:
    """The plainest network."""
    return Network()
