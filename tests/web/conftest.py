from __future__ import annotations

import pytest

from tests.web.places import Place


@pytest.fixture
def place() -> Place:
    """Our own server on the plainest network; the marks of places.py replace it by others."""
    return Place()
