"""What production installs where there is a C compiler means the same as the plain modules."""

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import compiled

MODULES = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())["tool"]["touchline"]["compiled"]
BALANCE = (
    "test_recompute",
    "test_simulation",
    "test_against_oracles",
    "test_lanes",
    "test_facts",
    "test_segment",
    "test_attribution",
    "test_warmth",
    "test_alerting",
    "test_bots",
    "test_usage",
)
IN_COMPILED = """
import importlib, sys, pytest
plain = [name for name in sys.argv[1].split() if importlib.import_module("models." + name).__file__.endswith(".py")]
sys.exit(f"not compiled: {plain}" if plain else pytest.main(sys.argv[2:]))
"""
SECONDS = 300


def decoded_types() -> Iterator[Any]:
    """Every type that a decoder of models or streams reads."""
    for package in ("models", "streams"):
        for file in (compiled.ROOT / package).glob("*.py"):
            for value in vars(importlib.import_module(f"{package}.{file.stem}")).values():
                for each in value.values() if isinstance(value, dict) else [value]:
                    decoder = getattr(each, "__self__", each)
                    if isinstance(decoder, msgspec.json.Decoder | msgspec.msgpack.Decoder):
                        yield decoder.type


def modules_of(described: Any, seen: set[int]) -> Iterator[str]:
    """The modules of the classes that a type is made of."""
    if id(described) in seen:
        return
    seen.add(id(described))
    if isinstance(described, tuple):
        inside = list(described)
    elif isinstance(described, msgspec.inspect.Type | msgspec.inspect.Field):
        inside = [getattr(described, name) for name in described.__struct_fields__]
    else:
        return
    if hasattr(described, "cls"):
        yield described.cls.__module__
    for each in inside:
        yield from modules_of(each, seen)


def test_nothing_is_read_into_a_class_of_a_compiled_module() -> None:
    """The types of its fields are lost."""
    read = {module for each in decoded_types() for module in modules_of(msgspec.inspect.type_info(each), set())}

    assert "models.formats" in read
    assert not read & {f"models.{name}" for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_a_compiled_module_defines_nothing_that_would_mean_something_else(name: str) -> None:
    source = (compiled.ROOT / "models" / f"{name}.py").read_text()

    assert not re.search(r"class .*\bStruct\b", source)  # what it is made with (order=True) is lost
    assert "cached_property" not in source  # it is worked out each time


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of the compiled package."""
    if reason := compiled.missing():
        pytest.skip(reason)
    return compiled.installed()


@pytest.mark.slow
def test_what_is_installed_is_whole(package: Path) -> None:
    files = [file.relative_to(compiled.ROOT) for file in compiled.packaged()]

    assert [file for file in files if not (package / file).exists()] == []


@pytest.mark.slow
def test_the_books_balance_when_compiled(package: Path) -> None:
    tests = [str(compiled.ROOT / "tests" / f"{name}.py") for name in BALANCE]
    options = ["-q", "-x", "-m", "not slow", "--import-mode=append", "-p", "no:cacheprovider"]
    environment = {**compiled.environment(package), "TOUCHLINE_EXAMPLES": "60"}

    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_COMPILED, " ".join(MODULES), *options, *tests],
        cwd=compiled.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
