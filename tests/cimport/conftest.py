from __future__ import annotations

import pytest

from tests.packaging.installation import Installation, install


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(tmp_path_factory.getbasetemp())
