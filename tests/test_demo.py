"""The demo loads the sample world, and touches nothing that is not its own."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from deploy import demo
from deploy.world import sample_world
from models.errors import Unavailable
from models.settings import Settings, Web
from streams import embedded, topics

ROOT = Path(__file__).parents[1]


def start() -> Result:
    return CliRunner().invoke(demo.main, ["--once"], env={"TOUCHLINE_REDIS": "", "TOUCHLINE_CONFIG": ""})


def test_the_demo_does_not_load_into_servers_of_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "touchline.toml").write_text('[kafka]\nbootstrap = "kafka.company.example:9092"\n')

    result = start()

    assert result.exit_code == 1
    assert "the settings here name Kafka or Redis servers" in result.output
    assert not (tmp_path / ".touchline").exists()


def test_the_demo_leaves_a_folder_with_other_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".touchline" / "kafka").mkdir(parents=True)

    result = start()

    assert result.exit_code == 1
    assert "holds data that is not the demo's" in result.output


async def test_loading_puts_every_fact_of_the_world_into_its_topic(settings: Settings) -> None:
    await topics.create_topics(settings)
    history = sample_world(datetime(2026, 6, 1, tzinfo=UTC), count=20, strangers=50).facts

    await demo._load(history, settings, Console(quiet=True))

    records = {row.topic: row.records for row in await topics.list_topics(settings) if row.records}
    wanted = Counter(topics.full_name(settings, topic) for topic, _ in history)
    assert records == wanted


async def test_a_message_is_posted_as_a_segment_client_does_it() -> None:
    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(
                (self.path, self.headers["authorization"], self.rfile.read(int(self.headers["content-length"])))
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    taken: list[tuple[str, str, bytes]] = []
    server = HTTPServer(("127.0.0.1", 0), Door)
    Thread(target=server.handle_request).start()

    await demo._post({"type": "page"}, Settings(web=Web(address=f"http://127.0.0.1:{server.server_port}")))

    server.server_close()
    path, key, body = taken[0]
    assert (path, key) == ("/v1/batch", "Basic ZGV2Og==")
    assert msgspec.json.decode(body)["batch"] == [{"type": "page"}]


async def test_a_door_that_stays_shut_ends_the_demo_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "AWAY_SECONDS", 0.0)
    address = f"http://127.0.0.1:{embedded.free_port()}"

    with pytest.raises(Unavailable, match=address):
        await demo._post({}, Settings(web=Web(address=address)))


@pytest.mark.slow
def test_the_demo_comes_up_loads_and_ends_and_goes_on_the_next_time(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-m", "deploy.demo", "--once"]

    first = subprocess.run(run, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=400, check=False)
    again = subprocess.run(run, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200, check=False)

    assert (first.returncode, again.returncode) == (0, 0), first.stdout + again.stdout
    assert "The live page: http://127.0.0.1:" in first.stdout
    assert "Loading 120 days" in first.stdout
    assert "Loading" not in again.stdout
    assert asyncio.run(_nothing_runs(tmp_path))


async def _nothing_runs(folder: Path) -> bool:
    """Whether no process has the folder's servers' data open any more."""
    return not [pid for pid in Path("/proc").glob("[0-9]*") if str(folder) in _command(pid)]


def _command(pid: Path) -> str:
    try:
        return (pid / "cmdline").read_text(errors="replace")
    except OSError:
        return ""
