"""What the documents show is true: every example is a valid fact, every command runs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import decoding, facts
from models.settings import Settings, parse_settings
from models.times import parse_instant

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```json ([a-z-]+)\n(.*?)\n```", README, re.DOTALL)
TESTED = re.findall(r"<!-- tested -->\n```bash\n(.*?)\n```", README, re.DOTALL)
COMMANDS = [line for block in TESTED for line in block.splitlines()]
READY_SECONDS = 120


@pytest.mark.parametrize(("topic", "example"), EXAMPLES, ids=[f"{topic}-{n}" for n, (topic, _) in enumerate(EXAMPLES)])
def test_each_example_of_a_fact_is_valid(topic: str, example: str) -> None:
    fact = decoding.decode(topic, example.encode(), parse_instant("2026-11-01", "now"), Settings())

    assert facts.key_of(topic, fact)


def test_every_topic_of_facts_has_an_example() -> None:
    assert {topic for topic, _ in EXAMPLES} == set(facts.FACT_TOPICS)


def test_each_example_of_settings_is_possible() -> None:
    examples = re.findall(r"```toml\n(.*?)\n```", README, re.DOTALL)

    assert any("committee" in parse_settings(tomllib.loads(example)).models for example in examples)


def test_every_make_target_that_is_documented_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"^make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE)) <= targets


def test_every_command_of_the_command_line_is_documented() -> None:
    from streams.cli import main

    for name in main.list_commands(None):  # type: ignore[arg-type]
        assert f"`{name}" in README, name


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A folder in which `touchline dev` runs, as environment for its commands."""
    folder = tmp_path_factory.mktemp("readme")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PWD": str(folder), "COLUMNS": "120"}
    with subprocess.Popen(
        ["touchline", "dev", "--json"], cwd=folder, env=environ, stdout=subprocess.PIPE, text=True
    ) as dev:
        assert dev.stdout is not None
        ready = json.loads(dev.stdout.readline())
        yield {**environ, "TOUCHLINE_WEB": ready["web"], "FOLDER": str(folder)}
        dev.send_signal(signal.SIGTERM)
        dev.wait(READY_SECONDS)


@pytest.mark.slow
def test_every_command_of_the_readme_runs(running: dict[str, str]) -> None:
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=running["FOLDER"],
            env=running,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )

        assert done.returncode == 0, f"{shlex.quote(command)}\n{done.stdout}\n{done.stderr}"
