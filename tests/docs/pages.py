"""The code that the pages show."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

CODE_BLOCK = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def code_blocks() -> Iterator[tuple[str, str]]:
    """A name that tells the place, and the code."""
    for page in sorted(DOCS.rglob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for match in CODE_BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{page.stem}_line_{line}", textwrap.dedent(match[2])
