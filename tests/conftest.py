from __future__ import annotations

import gc

import pytest

from tests.connection.networks import Network


def pytest_collection_finish() -> None:
    """What was collected stays to the end: tests that look for garbage need not look through thousands of tests each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What is imported by then may ask who refers to what, and frozen objects do not tell: hypothesis does so, of trio's."""
    gc.unfreeze()


@pytest.fixture
def net() -> Network:
    """The plainest network; the marks of networks.py replace it by others."""
    return Network()
