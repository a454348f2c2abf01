"""Which settings win, and what clients are made of them."""

import fcntl
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster

from models import settings as model
from models.errors import BadInput
from models.settings import Settings
from streams import config

FILE = """
currency = "EUR"
[kafka]
bootstrap = "from-file:9092"
[redis]
url = "redis://from-file:6379"
"""


def test_without_file_and_environment_the_defaults_hold(tmp_path: Path) -> None:
    assert config.load({}, tmp_path) == Settings()


def test_the_file_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "touchline.toml").write_text(FILE)

    settings = config.load({}, tmp_path)
    assert (settings.currency, settings.kafka.bootstrap) == ("EUR", "from-file:9092")


def test_a_running_dev_wins_over_the_file_and_the_environment_over_both(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text(FILE)
    environ = {"TOUCHLINE_CONFIG": "elsewhere.toml"}
    folder = tmp_path / ".touchline"
    folder.mkdir()
    config.write_running(folder, config.Running(1, "from-dev:9092", "redis://from-dev:6379", "http://127.0.0.1:8000"))

    with (folder / "dev.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = config.load(environ, tmp_path)
        told = config.load(environ | {"TOUCHLINE_KAFKA": "told:9092", "TOUCHLINE_REDIS": "redis://told"}, tmp_path)

    assert (found.currency, found.kafka.bootstrap, found.redis.url) == ("EUR", "from-dev:9092", "redis://from-dev:6379")
    assert (found.web.host, found.web.port, found.web.address) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert (told.kafka.bootstrap, told.redis.url) == ("told:9092", "redis://told")


def test_what_a_killed_dev_left_behind_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / ".touchline"
    folder.mkdir()
    (folder / "dev.lock").touch()
    config.write_running(folder, config.Running(1, "gone:9092", "redis://gone", "http://127.0.0.1:8000"))

    assert config.load({}, tmp_path) == Settings()


def test_the_worker_takes_its_member_id_from_the_environment(tmp_path: Path) -> None:
    assert config.load({"TOUCHLINE_INSTANCE": "dev-1"}, tmp_path).lanes.instance == "dev-1"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("currency = ", "touchline.toml"),
        ("partitions = 0", "partitions"),
        ("lead_quality = 'Industry'", "lead_quality: expected none, first_channel or an attribute in lower case"),
        ("[kafka]\nbootstrap = 9092", "kafka.bootstrap"),
        ("patritions = 8", "patritions: expected a name that is known"),
        ("partitions = 'many'", "partitions: expected int, got str"),
        ("time_decay_half_life_days = nan", "time_decay_half_life_days"),
        ("[warmth]\nhalf_life_days = inf", "warmth.half_life_days"),
        ("lookback.won = -1", "lookback.won"),
        ("lookback.stages.demo = -1", "lookback.stages.demo"),
        ('currency = "usd"', "currency"),
        ('rates = [{date = "2026-1-5", from = "EUR", to = "USD", rate = "1.1"}]', "EUR: expected a day"),
        (
            'rates = [{date = "2026-01-05", from = "EUR", to = "usd", rate = "1.1"}]',
            "EUR: expected an ISO",
        ),
        (
            'rates = [{date = "2026-01-05", from = "EUR", to = "USD", rate = "-1"}]',
            "EUR: expected a decimal",
        ),
        ("[models.own.decay]", r"models\[...\].decay.half_life_days: expected a value, got nothing"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "touchline.toml").write_text(text)

    with pytest.raises(BadInput, match=where):
        config.load({}, tmp_path)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"missing\.toml"):
        config.load({"TOUCHLINE_CONFIG": "missing.toml"}, tmp_path)


def test_kafka_clients_log_in_with_sasl_over_tls() -> None:
    options = config.kafka_options(
        Settings(
            kafka=model.Kafka(
                bootstrap="a:9093, b:9093",
                security_protocol="SASL_SSL",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username="touchline",
                sasl_password="secret",
            )
        )
    )

    assert options.pop("ssl_context").check_hostname
    assert options == {
        "bootstrap_servers": ["a:9093", "b:9093"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "touchline",
        "sasl_plain_password": "secret",
    }


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h:1", Redis),
        ("rediss://h:1", Redis),
        ("redis+cluster://h:1", RedisCluster),
        ("rediss+cluster://h:1", RedisCluster),
    ],
)
def test_the_url_decides_the_redis_client(url: str, kind: type) -> None:
    assert isinstance(config.redis_client(Settings(redis=model.Redis(url=url))), kind)


def test_without_servers_the_message_says_what_to_do() -> None:
    with pytest.raises(BadInput, match="touchline dev"):
        config.kafka_options(Settings())
    with pytest.raises(BadInput, match="touchline dev"):
        config.redis_client(Settings())
    with pytest.raises(BadInput, match="rediss"):
        config.redis_client(Settings(redis=model.Redis(url="http://h:1")))
