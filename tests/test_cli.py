"""The command line as scripts meet it: help, settings, exit codes, one line for an error."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from models import errors
from models.settings import Kafka, Settings
from models.settings import Redis as RedisSettings
from streams import cli, embedded, printing, topics, warmth_commands

NAMES = (
    "dev",
    "worker",
    "deliver",
    "web",
    "topics",
    "settings",
    "models",
    "load",
    "wait",
    "report",
    "link",
    "unlink",
    "alerts",
    "audit",
    "rebuild",
)


def run(*arguments: str, **environ: str) -> Result:
    """A command with nothing but these TOUCHLINE_ variables."""
    nothing = dict.fromkeys(("TOUCHLINE_KAFKA", "TOUCHLINE_REDIS", "TOUCHLINE_CONFIG", "TOUCHLINE_WEB"))
    return CliRunner().invoke(cli.main, arguments, env={**nothing, **environ})


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings and without a running dev."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_every_command_in_the_order_one_needs_them() -> None:
    lines = run("--help").output.partition("Commands:")[2].split("\n")

    assert tuple(line.split()[0] for line in lines if line.strip()) == NAMES


def test_help_is_quick_since_it_imports_no_client() -> None:
    asked = "import sys, streams.cli as cli; cli.main(['--help'], standalone_mode=False); print(*sys.modules)"
    root = Path(cli.__file__).parents[1]

    printed = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, check=True).stdout

    assert not {"aiokafka", "redis", "faust", "rich", "uvicorn"} & set(printed.split())


def test_the_module_runs_as_a_program() -> None:
    root = Path(cli.__file__).parents[1]
    command = [sys.executable, "-m", "streams.cli", "report", "--help"]

    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    assert "credits" in printed
    assert "journey" in printed


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name: str) -> None:
    result = run(name, "--help")

    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TouchlineError("no"), 1),
        (errors.BadInput("x", "y", "z"), 2),
        (errors.NotFound("no"), 3),
        (errors.Unavailable("no"), 4),
        (errors.Fenced("no"), 1),
    ],
)
def test_every_error_has_an_exit_code(error: errors.TouchlineError, code: int) -> None:
    assert cli.exit_code(error) == code


def test_a_command_that_finds_no_server_says_what_to_do() -> None:
    for command in (("report", "pipeline"), ("wait",), ("topics",), ("audit",), ("rebuild", "--yes")):
        result = run(*command)

        assert result.exit_code == 2
        assert result.stderr.startswith("touchline: ")
        assert "touchline dev" in result.stderr
        assert result.stderr.count("\n") == 1


def test_servers_that_are_away_are_told_in_one_line() -> None:
    nowhere = {
        "TOUCHLINE_REDIS": f"redis://127.0.0.1:{embedded.free_port()}",
        "TOUCHLINE_KAFKA": f"127.0.0.1:{embedded.free_port()}",
    }

    for command in (("report", "pipeline"), ("topics",), ("report", "lanes"), ("audit",)):
        result = run(*command, **nowhere)

        assert result.exit_code == 4
        assert result.stderr.count("\n") == 1
        assert "127.0.0.1" in result.stderr


def test_a_wait_gives_up_on_a_server_that_stays_away() -> None:
    began = time.monotonic()
    result = run(
        "wait",
        "--timeout",
        "1",
        TOUCHLINE_REDIS=f"redis://127.0.0.1:{embedded.free_port()}",
        TOUCHLINE_KAFKA=f"127.0.0.1:{embedded.free_port()}",
    )

    assert result.exit_code == 1
    assert "not everything is in the totals after 1 s: Redis does not answer" in result.stderr
    assert time.monotonic() - began < 10


def test_lanes_are_told_without_kafka(settings: Settings) -> None:
    nowhere = f"127.0.0.1:{embedded.free_port()}"

    result = run("report", "lanes", "--format", "json", TOUCHLINE_KAFKA=nowhere, TOUCHLINE_REDIS=settings.redis.url)

    rows = json.loads(result.stdout)
    assert [(row["lane"], row["facts"], row["lag"]) for row in rows] == [
        ("visitors", 0, None),
        ("members", 0, None),
        ("accounts", 0, None),
    ]


def test_the_settings_in_force_are_shown_without_secrets(empty_folder: Path) -> None:
    (empty_folder / "touchline.toml").write_text(
        'currency = "EUR"\n[kafka]\nbootstrap = "kafka.example:9092"\nsasl_password = "s3cret"\n'
        '[web]\nsecret_keys = ["s3cret"]\n[[rates]]\ndate = "2026-01-01"\nfrom = "USD"\nto = "EUR"\nrate = "0.9"\n'
    )
    url = "rediss://user:s3cret@redis.example:6379/1?password=s3cret&ssl_cert_reqs=none"

    document = json.loads(run("settings", "--format", "json", TOUCHLINE_REDIS=url).stdout)
    table = run("settings", TOUCHLINE_REDIS=url).stdout

    assert document["currency"] == "EUR"
    assert document["kafka"]["sasl_password"] == "***"
    assert document["web"]["secret_keys"] == ["***"]
    assert document["redis"]["url"] == "rediss://user:***@redis.example:6379/1?password=***&ssl_cert_reqs=none"
    assert "s3cret" not in table
    assert ["currency", "EUR"] in [line.split() for line in table.splitlines()]
    assert "kafka.bootstrap" in table


def test_the_secrets_of_destinations_are_not_shown(empty_folder: Path) -> None:
    (empty_folder / "touchline.toml").write_text(
        '[destinations.hook]\nkind = "webhook"\nurl = "https://me:hidden@h.example/in?token=hidden"\n'
        'secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]\n'
        '[destinations.chat]\nkind = "slack"\nurl = "https://hooks.slack.com/services/hidden"\n'
        '[destinations.mail]\nkind = "email"\nhost = "h"\nuser = "me"\npassword = "hidden"\n'
        'from = "a@b.c"\nto = ["d@e.f"]\n'
    )

    shown = json.loads(run("settings", "--format", "json").stdout)["destinations"]

    assert shown["hook"] | {"allow_private": 0} == {
        "kind": "webhook", "url": "https://me:***@h.example/in?token=***", "secrets": ["***"], "allow_private": 0
    }  # fmt: skip
    assert shown["chat"]["url"] == "https://hooks.slack.com/***"
    assert (shown["mail"]["password"], shown["mail"]["user"]) == ("***", "me")


def test_a_setting_that_is_wrong_is_named(empty_folder: Path) -> None:
    (empty_folder / "touchline.toml").write_text("partitions = 0\n")

    result = run("settings")

    assert result.exit_code == 2
    assert "partitions: expected a whole number from 1" in result.stderr


def test_missing_topics_are_made_and_listed(settings: Settings) -> None:
    place = {"TOUCHLINE_KAFKA": settings.kafka.bootstrap, "TOUCHLINE_CONFIG": "mine.toml"}
    Path("mine.toml").write_text(f'topic_prefix = "{settings.topic_prefix}"\npartitions = 2\n')

    before = json.loads(run("topics", "--format", "json", **place).stdout)
    after = json.loads(run("topics", "--create", "--format", "json", **place).stdout)

    assert {row["partitions"] for row in before} == {None}
    assert {row["partitions"] for row in after} == {2}
    assert [row["topic"] for row in after] == [settings.topic_prefix + topic for topic in topics.ALL]


def test_a_rebuild_asks_first() -> None:
    result = CliRunner().invoke(cli.main, ["rebuild"], input="n\n", env={"TOUCHLINE_REDIS": "redis://127.0.0.1:1"})

    assert "Empty all tables" in result.output
    assert result.exit_code == 1


def test_the_redis_of_the_settings_needs_no_password_to_be_shown() -> None:
    plain = Settings(redis=RedisSettings(url="redis+cluster://127.0.0.1:7000"), kafka=Kafka(bootstrap="k:1"))

    assert cli.masked(plain)["redis"]["url"] == "redis+cluster://127.0.0.1:7000"
    assert cli.masked(replace(plain, redis=RedisSettings(url="redis://:pw@h:1")))["redis"]["url"] == "redis://:***@h:1"


def test_nested_values_and_lists_become_columns() -> None:
    row = {"lane": "visitors", "topics": {"page-views": {"lag": 3}}, "workers": ["a", "b"], "rates": [{"x": 1}]}

    assert printing.flattened(row) == {
        "lane": "visitors",
        "topics.page-views.lag": 3,
        "workers": "a, b",
        "rates": '{"x": 1}',
    }


def test_only_tables_round_instants_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"at": "2026-04-01T09:00:00.123456Z", "seconds": 48.406952}]
    printing.show(rows, "table")
    printing.show(rows, "csv")

    table, csv = capsys.readouterr().out.split("at,seconds\n")
    assert table.split() == ["at", "seconds", "2026-04-01T09:00:00Z", "48.407"]
    assert csv == "2026-04-01T09:00:00.123456Z,48.406952\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("report", "forecast", "--chances", "--lead-quality"), "--chances, --lead-quality and --backtest exclude"),
        (("report", "forecast", "--from", "2026-01"), "--from does not go with a forecast"),
        (("report", "forecast", "--backtest", "--day", "2026-01-01"), "--day does not go with --backtest"),
        (("report", "forecast", "--chances", "--grain", "year"), "--grain does not go with --chances"),
        (("wait", "--timeout", "-1"), "--timeout"),
        (("alerts", "test", "--route", "a", "--to", "b"), "--route and --to exclude each other"),
    ],
)
def test_options_that_make_no_sense_are_refused(command: tuple[str, ...], said: str) -> None:
    result = run(*command)

    assert result.exit_code == 2
    assert said in result.stderr


def test_a_table_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    printing.show([], "table", ("stage",))
    printing.show([], "json")
    printing.show([], "csv", ("stage", "amount"))

    assert capsys.readouterr().out == "(nothing)\n[]\nstage,amount\n"


def test_a_transition_is_put_down_to_five_touches_or_to_the_deals_that_stood_still() -> None:
    def cause(number: int, kind: str = "call") -> dict[str, Any]:
        return {
            "kind": kind,
            "channel": None,
            "campaign": None,
            "person": f"p{number}",
            "share": None,
            "at": "2026-04-01",
        }

    deal = {"dealId": "D1", "stage": "proposal", "daysInStage": 42}
    upward = {"causes": [cause(number) for number in range(7)], "lastTouches": [], "cooled": None, "deals": [deal]}
    downward = {"causes": [cause(1, "inactive")], "lastTouches": [cause(2)], "cooled": None, "deals": [deal]}

    assert list(warmth_commands.reasons(upward)) == [f"call by p{number}" for number in range(5)]
    assert list(warmth_commands.reasons(downward)) == [
        "inactive by p1", "last touch call by p2 on 2026-04-01", "deal D1 in proposal for 42 days",
    ]  # fmt: skip
