from __future__ import annotations

import os
import sys

# The tests run a second time in a process of their own in which the package `websockets` cannot be imported.
WITHOUT = "PICOWS_TEST_WITHOUT_WEBSOCKETS"
if os.environ.get(WITHOUT):
    sys.modules["websockets"] = None  # type: ignore[assignment]
