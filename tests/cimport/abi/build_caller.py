"""Builds caller in the folder it runs in, against the picows.pxd of the release that the argument behind -- names."""

import sys

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

at = sys.argv.index("--")
(interface,) = sys.argv[at + 1 :]
del sys.argv[at:]

Options.warning_errors = True
# Nothing here has to be quick.
caller = Extension("caller", ["caller.pyx"], extra_compile_args=["-O0"])
setup(name="caller", ext_modules=cythonize([caller], include_path=[interface], depfile=True))
