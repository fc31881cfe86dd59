"""The setup.py of that user: builds user_listener in the folder it runs in, against the picows that Python imports."""

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

Options.warning_errors = True
# Nothing here has to be quick.
listener = Extension("user_listener", ["user_listener.pyx"], extra_compile_args=["-O0"])
setup(name="user_listener", ext_modules=cythonize([listener]))
