"""Compiles the hot modules with mypyc for a wheel, where there is a C compiler; anywhere else they stay plain Python.

TOUCHLINE_COMPILE=0 forbids it; with TOUCHLINE_COMPILE=1 the build fails where it cannot be done.
An editable install is never compiled: an extension would hide every later edit of its module.
"""

import os
import sys
import tempfile
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CHOICE = os.environ.get("TOUCHLINE_COMPILE", "")


def main() -> None:
    """Build what the command line asks for."""
    is_wanted = "bdist_wheel" in sys.argv and CHOICE != "0"
    with tempfile.TemporaryDirectory() as folder:  # nothing of an earlier build gets into this one
        setup(
            ext_modules=_extensions(folder) if is_wanted else [],
            cmdclass={"build_ext": AllOrNone},
            options={"build": {"build_base": folder}},
        )


def _extensions(folder: str) -> list[Extension]:
    """The modules that pyproject.toml lists, translated to C."""
    modules = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["touchline"]["compiled"]
    try:
        from mypyc.build import mypycify

        return mypycify([f"models/{name}.py" for name in modules], opt_level="1", debug_level="0", target_dir=folder)
    except (ImportError, SystemExit) as error:  # mypycify exits where types do not hold
        _give_up(error)
        return []


class AllOrNone(build_ext):
    """Builds every extension or, where one fails, none: they rely on each other."""

    def run(self) -> None:
        """Compile."""
        try:
            super().run()
        except Exception as error:
            _give_up(error)
            for built in self.get_outputs():
                Path(built).unlink(missing_ok=True)
            self.extensions = self.distribution.ext_modules = []


def _give_up(error: BaseException) -> None:
    """Say why nothing is compiled; raises where it was required."""
    if CHOICE == "1":
        raise error
    print(f"touchline: installed as plain Python, which is slower; not compiled: {error}", file=sys.stderr)


main()
