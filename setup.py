"""The extension modules, their compiler flags, and README.rst as package indexes get it; all else stands in pyproject.toml.

Environment switches, each off unless set to 1:
  PICOWS_SANITIZE        AddressSanitizer and UndefinedBehaviorSanitizer (`make sanitize` shows how to run such a build);
                         "thread": ThreadSanitizer in their place (`make races`)
  PICOWS_DEBUG           assertions and bounds checks on, no optimisation
  PICOWS_TRACE           tells coverage which lines of Cython ran, and leaves the C sources where coverage looks for them
  PICOWS_QUICK           optimises little: for a build that is tried once (`make mutate`)
  PICOWS_BUILD_EXAMPLES  what tests and examples have in Cython too, which no wheel holds; for a build in place
  PICOWS_FUZZ            only what the native fuzz targets are made of, with counters for libFuzzer; for clang (`make fuzz-native`)

CYTHON_CACHE_DIR is Cython's own: what it names keeps the translated sources, by their contents.
"""

import hashlib
import os
import re
import shutil
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switched_on(name):
    return os.environ.get(name, "0") not in ("", "0")


FUZZ = switched_on("PICOWS_FUZZ")
SANITIZE = switched_on("PICOWS_SANITIZE")
DEBUG = switched_on("PICOWS_DEBUG")
TRACE = switched_on("PICOWS_TRACE")
QUICK = switched_on("PICOWS_QUICK")

DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,
    "auto_pickle": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    # Methods are the interpreter's own descriptors: quicker to call, and they check the type of their `self`, which a
    # Cython function takes for granted.
    "binding": False,
    "cdivision": True,
    "wraparound": False,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
}
if TRACE:
    DIRECTIVES["linetrace"] = True

# The first line is for our own C; the rest is what Cython's C cannot avoid.
WARNINGS = [
    "-Wall", "-Wextra", "-Wvla", "-Wpointer-arith",
    "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers", "-Wno-sign-compare",
]  # fmt: skip
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
if os.environ.get("PICOWS_SANITIZE") == "thread":
    SANITIZERS = ["-fsanitize=thread", "-fno-omit-frame-pointer"]


def compiler_flags(compiler_type):
    if compiler_type != "unix":
        return [], []
    if FUZZ:  # the sanitizers are the caller's: where coverage is measured there are none
        return [*WARNINGS, "-g", "-UNDEBUG", "-fsanitize=fuzzer-no-link"], ["-fsanitize=fuzzer-no-link"]
    if SANITIZE:
        return [*WARNINGS, "-O1", "-g", "-UNDEBUG", *SANITIZERS], SANITIZERS
    if DEBUG:
        return [*WARNINGS, "-O0", "-g", "-UNDEBUG"], []
    if TRACE:
        return ["-O1", "-DCYTHON_TRACE_NOGIL=1"], []
    return [*WARNINGS, "-O1" if QUICK else "-O3"], []


def interface(*patterns):
    return sorted(path for pattern in patterns for path in glob(pattern))


# The codec is inline functions: it is compiled into whatever uses it, and is no module of its own.
BELOW_THE_LOOP = interface("picows/_codec.pxd", "picows/_messages.pxd", "picows/_native/*")


def extensions():
    modules = [
        Extension("picows._messages", ["picows/_messages.pyx"], depends=BELOW_THE_LOOP),
        Extension(
            "picows.picows",
            ["picows/picows.pyx"],
            depends=interface("picows/*.pxd", "picows/_core/*.pxi", "picows/_native/*"),
        ),
        Extension("picows.upgrade._fields", ["picows/upgrade/_fields.pyx"]),
        Extension(
            "picows._streams",
            ["picows/_streams.pyx"],
            depends=interface("picows/_streams*.p?[di]", "picows/picows.pxd"),
        ),
        Extension(
            "picows._asgi",
            ["picows/_asgi.pyx"],
            depends=interface("picows/_streams.pxd", "picows/picows.pxd"),
        ),
        Extension(
            "picows.web._stream",
            ["picows/web/_stream.pyx"],
            depends=interface("picows/_streams.pxd", "picows/picows.pxd"),
        ),
        Extension(
            "picows.websockets.asyncio.connection",
            ["picows/websockets/asyncio/connection.pyx"],
            depends=interface("picows/websockets/asyncio/*.pxd", "picows/_streams.pxd", "picows/picows.pxd"),
        ),
    ]
    if switched_on("PICOWS_BUILD_EXAMPLES"):
        modules += [
            Extension(path[: -len(".pyx")].replace(os.sep, "."), [path], depends=interface("picows/*.pxd", "picows/_native/*"))
            for path in interface("examples/*.pyx", "tests/*/bindings.pyx")
        ]
    if FUZZ:
        under = [*BELOW_THE_LOOP, *interface("fuzz/native/*.h", "fuzz/native/*.pxi")]
        names = [path[: -len(".pyx")].replace(os.sep, ".") for path in interface("fuzz/native/*.pyx")]
        targets = [Extension(name, [name.replace(".", os.sep) + ".pyx"], depends=under) for name in names]
        modules = [module for module in modules if module.name in ("picows._messages", "picows.upgrade._fields")] + targets
    for module in modules:
        module.include_dirs = ["picows", *(["fuzz/native"] if FUZZ else [])]
    return modules


class BuildChanged(build_ext):
    """Rebuilds the extensions whose inputs changed in content: time stamps lie after a copy or a step of the clock."""

    def build_extensions(self):
        compile_args, link_args = compiler_flags(self.compiler.compiler_type)
        for ext in self.extensions:
            ext.extra_compile_args, ext.extra_link_args = compile_args, link_args
        everything = self.extensions
        inputs = {ext.name: self.inputs(ext) for ext in everything}
        self.extensions = [ext for ext in everything if self.built_from(ext) != inputs[ext.name]]
        try:
            if self.extensions:
                self.cythonize()
                self.force = True
                self.parallel = self.parallel or os.cpu_count()
                super().build_extensions()
            for ext in self.extensions:
                self.stamp(ext).write_text(inputs[ext.name])
        finally:
            self.extensions = everything

    def cythonize(self):
        from Cython.Build import cythonize
        from Cython.Compiler import Options

        Options.warning_errors = True
        Options.default_options["emit_linenums"] = FUZZ  # what sanitizers and coverage report are lines of Cython then
        # One directory per interpreter, so that builds for several may run at the same time. Cython copies the headers
        # there by time stamp, so nothing old may lie in it.
        translated_to = None if TRACE else os.path.join(self.build_temp, "cython")
        shutil.rmtree(translated_to or "", ignore_errors=True)
        in_c = cythonize(
            self.extensions,
            build_dir=translated_to,
            compiler_directives=DIRECTIVES,
            cache="CYTHON_CACHE_DIR" in os.environ,
            force=TRACE,  # nothing is there otherwise, and what is forced is not looked for in the cache
        )
        for ext, translated in zip(self.extensions, in_c):
            ext.sources = translated.sources

    def inputs(self, ext):
        from Cython import __version__ as cython_version

        settings = [cython_version, DIRECTIVES, ext.extra_compile_args, ext.extra_link_args]
        settings += [os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS")]
        settings += [sysconfig.get_config_var("prefix"), os.path.abspath(self.get_ext_fullpath(ext.name))]
        digest = hashlib.sha256(repr(settings).encode())
        for path in [*ext.sources, *ext.depends]:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        return digest.hexdigest()

    def built_from(self, ext):
        stamp = self.stamp(ext)
        return stamp.read_text() if stamp.exists() and Path(self.get_ext_fullpath(ext.name)).exists() else None

    def stamp(self, ext):
        return Path(self.build_temp, f"{ext.name}.sha256")


def long_description():
    """README.rst for package indexes, where a path of the checkout leads nowhere: without its picture."""
    text = Path("README.rst").read_text(encoding="utf-8")
    return re.sub(r"^\.\. image::.*\n( .*\n)*\n", "", text, flags=re.MULTILINE)


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildChanged},
    long_description=long_description(),
    long_description_content_type="text/x-rst",
)
