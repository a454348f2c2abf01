"""The package as production installs it where there is a C compiler: compiled, in a folder of its own."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(sys.prefix) / "compiled"
"""Holds the one that was built last, so that it is not built again while nothing changes."""


def missing() -> str:
    """What compiling would need that is not here; empty where nothing is."""
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(command) is None:
        return f"no C compiler ({command})"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.exists() else f"no {header}"


def installed() -> Path:
    """Install what the checkout holds, compiled, unless it is there already; the folder it is in."""
    folder = FOLDER / _digest()
    if not folder.exists():
        shutil.rmtree(FOLDER, ignore_errors=True)
        target = folder.with_suffix(".part")
        command = ["-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--target", str(target), "."]
        subprocess.run([sys.executable, *command], cwd=ROOT, env={**os.environ, "TOUCHLINE_COMPILE": "1"}, check=True)
        target.rename(folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process (python -P) that imports the package from this folder, and tests from here."""
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def is_used() -> bool:
    """Does this process import what is compiled?"""
    from models import visitors

    return not visitors.__file__.endswith(".py")


def _digest() -> str:
    """Tells builds apart: by their sources and by what builds them."""
    digest = hashlib.blake2b(f"{platform.platform()} {sys.version} {version('mypy')}".encode(), digest_size=8)
    for file in (ROOT / "pyproject.toml", ROOT / "setup.py", *packaged()):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def packaged() -> Iterator[Path]:
    """Every file of the packages in the checkout."""
    for package in ("models", "streams", "deploy"):
        files = (ROOT / package).rglob("*")
        yield from sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)
