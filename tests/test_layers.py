"""The code's own shape: who may import whom, and settings that are what their reference says."""

import ast
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from models.settings import Settings, parse_settings

ROOT = Path(__file__).parent.parent
INCREMENTAL = (
    "accounts",
    "booked",
    "claims",
    "deal_records",
    "dossier",
    "engagement",
    "entity",
    "filing",
    "gauge",
    "handover",
    "journeys",
    "lanes",
    "ledger",
    "owners",
    "people",
    "placing",
    "reach",
    "received",
    "recorded",
    "rolls",
    "statements",
    "telling",
    "timeline",
    "totals",
    "visitor_counts",
    "visitors",
    "warming",
)
ALLOWED_IN_MODELS = {"msgspec", "models", "mypy_extensions", *sys.stdlib_module_names}  # the third one for types alone
IO_MODULES = {
    "asyncio",
    "socket",
    "threading",
    "subprocess",
    "random",
    "time",
    "os",
    "pathlib",
    "logging",
    "urllib.request",
}


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda path: path.name)
def test_models_import_no_io_and_nothing_but_msgspec(path: Path) -> None:
    imported = imports_of(path)

    assert {name.partition(".")[0] for name in imported} <= ALLOWED_IN_MODELS
    assert not imported & IO_MODULES


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "batch").glob("*.py")), ids=lambda path: path.name)
def test_the_batch_shares_no_code_with_what_keeps_moves_and_restates(path: Path) -> None:
    assert not imports_of(path) & {f"models.{name}" for name in INCREMENTAL}


@pytest.mark.parametrize("package", ["models", "streams"])
def test_imports_go_one_way(package: str) -> None:
    files = (ROOT / package).rglob("*.py")
    imported = {".".join(file.relative_to(ROOT).with_suffix("").parts): imports_of(file) for file in files}

    TopologicalSorter(imported).prepare()  # raises where there is a circle


@pytest.mark.parametrize("path", sorted((ROOT / "streams").glob("*.py")), ids=lambda path: path.name)
def test_streams_import_no_deploy_and_no_tests(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & {"deploy", "tests"}


def test_the_reference_settings_equal_the_defaults() -> None:
    reference = parse_settings(tomllib.loads((ROOT / "deploy" / "reference.toml").read_text()))

    assert reference == Settings()


def test_the_reference_names_every_setting() -> None:
    document = tomllib.loads((ROOT / "deploy" / "reference.toml").read_text())

    for name in Settings.__struct_fields__:
        assert name in document, name
        nested = getattr(Settings(), name)
        for inner in getattr(nested, "__struct_fields__", ()):
            assert inner in document[name], f"{name}.{inner}"
