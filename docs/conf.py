"""Sphinx: the pages lie beside this file, the reference comes from the docstrings of the built package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import picows  # noqa: E402

project = "picows"
author = "the picows authors"
copyright = author
version = release = picows.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"
highlight_language = "python"

html_theme = "furo"
html_title = f"picows {release}"
html_copy_source = False
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

# Methods are shown in the order of the source, which is where the class says it is. These name the package, for pickles.
for message in (picows.WSUpgradeRequest, picows.WSUpgradeResponse, picows.WSUpgradeResponseWithListener):
    message.__module__ = "picows.upgrade.messages"


def stub_signatures(stub: Path) -> dict[str, tuple[str, str | None]]:
    """Arguments and return annotation of every method in a stub, by its dotted name."""
    signatures: dict[str, tuple[str, str | None]] = {}
    for cls in ast.parse(stub.read_text(encoding="utf-8")).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        signatures[cls.name] = "", None
        for method in cls.body:
            if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                del (method.args.posonlyargs or method.args.args)[0]  # self
                arguments = f"({ast.unparse(method.args)})"
                if method.name == "__init__":
                    signatures[cls.name] = arguments, None
                elif method.returns is not None:
                    signatures[f"{cls.name}.{method.name}"] = arguments, ast.unparse(method.returns)
    return signatures


# A compiled method shows its C types; its stub says what they are to Python.
STUBS = stub_signatures(ROOT / "picows" / "picows.pyi")


def signature_from_stub(app, what, name, obj, options, signature, return_annotation):
    return None if signature is None else STUBS.get(name.removeprefix("picows."))


def setup(app):
    app.connect("autodoc-process-signature", signature_from_stub)
