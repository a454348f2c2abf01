"""Kafka over TLS with SASL and Redis over TLS with a password: by the settings an operator would write."""

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from redis import Redis

from models.settings import Settings
from streams import config, embedded
from tests.receiving import SECRET, receiving
from tests.running import ROOT, STORY, Place
from tests.secured import PASSWORD, USER, Certificates, SecureKafka, secure_kafka, tls_relay
from tests.serving import KEY, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    # When TLS is refused, asyncio leaves the connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

README = (ROOT / "README.md").read_text()
WRITTEN = next(each for each in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "SASL_SSL" in each)
"""The settings as the README shows them."""
ASKING = {"kafka": ("topics",), "redis": ("report", "waiting")}
"""A command that asks nobody but this server."""
HERE = {
    "kafka-1:9093,kafka-2:9093": "{kafka.sasl}",
    "redis:6379": "{redis}",
    "/etc/touchline/ca.pem": "{certificates.authority}",
}
MUTUAL = """
[kafka]
bootstrap = "{kafka.mutual}"
security_protocol = "SSL"
ssl_cafile = "{certificates.authority}"
ssl_certfile = "{certificates.client}"
ssl_keyfile = "{certificates.key}"
"""
HOOK = """
[destinations.hook]
kind = "webhook"
url = "{hook}"
secrets = ["{secret}"]
allow_private = true
"""


class Secured(NamedTuple):
    """Where both servers let in who trusts their authority and knows the password."""

    kafka: SecureKafka
    redis: str
    plain_redis: str
    certificates: Certificates


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """Both servers, for the whole module; Redis lets nobody in but the user."""
    folder = tmp_path_factory.mktemp("secured")
    certificates = Certificates(folder / "certificates")
    async with embedded.redis(folder / "redis") as redis, secure_kafka(folder / "kafka", certificates) as kafka:
        with Redis.from_url(redis.address) as client:
            client.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"])
            client.acl_setuser("default", enabled=False)
        async with tls_relay(redis.address, certificates) as relay:
            yield Secured(kafka, relay, redis.address.removeprefix("redis://"), certificates)


def place_of(secured: Secured, folder: Path, toml: str) -> Place:
    """A place whose settings all stand in its file, with the addresses and files of this test's servers."""
    for shown, here in HERE.items():
        toml = toml.replace(shown, here)
    place = Place(Settings(partitions=2, topic_prefix="secured-"), folder)
    place.configure(toml.format(**secured._asdict()))
    return place


async def test_every_part_works_over_tls_with_passwords(secured: Secured, tmp_path: Path) -> None:
    async with receiving() as receiver:
        place = place_of(secured, tmp_path, WRITTEN + HOOK.format(hook=receiver.url, secret=SECRET))
        settings = config.load({"TOUCHLINE_CONFIG": str(place.config)}, tmp_path)
        await asyncio.to_thread(place.run, "topics", "--create")
        with place.worker(), place.worker("deliver"):
            async with served(settings) as web:
                answer = await web.post("/v1/page", json={"anonymousId": "v9"}, auth=(KEY, ""))
                health = await web.get("/healthz")
            compared = await asyncio.to_thread(counted, place)
            (tested,) = await asyncio.to_thread(place.rows, "alerts", "test", "--to", "hook")

    assert (answer.status_code, health.json()) == (200, {"kafka": True, "redis": True})
    assert (tested["outcome"], len(receiver.requests)) == ("delivered", 1)
    assert compared["clean"]
    assert (compared["facts"], compared["refused"]) == (len(STORY) + 1, 0)


def counted(place: Place) -> dict[str, object]:
    """What an audit says once the story is loaded and in the totals."""
    for topic in {topic for topic, _ in STORY}:
        file = place.folder / f"{topic}.jsonl"
        file.write_text("\n".join(json.dumps(body) for each, body in STORY if each == topic))
        place.run("load", topic, str(file))
    place.run("wait", "--timeout", "60")
    (row,) = place.rows("report", "credits", "--model", "first_touch", "--by", "team")
    assert row["amount"] == 90_000
    compared: dict[str, object] = place.rows("audit")
    return compared


async def test_a_client_certificate_and_a_password_from_the_environment_let_in(
    secured: Secured, tmp_path: Path
) -> None:
    by_certificate = place_of(secured, tmp_path, MUTUAL)
    await asyncio.to_thread(by_certificate.run, "topics")

    by_password = place_of(secured, tmp_path, WRITTEN.replace("SCRAM-SHA-512", "PLAIN").replace("s3cret&more", ""))
    by_password.environ["TOUCHLINE_KAFKA_PASSWORD"] = PASSWORD
    await asyncio.to_thread(by_password.run, "topics")


@pytest.mark.parametrize(
    ("server", "right", "wrong", "said"),
    [
        ("kafka", "s3cret&more", "guessed", "kafka.sasl_username, kafka.sasl_password: expected a user and password"),
        ("kafka", "SCRAM-SHA-512", "SCRAM-SHA-256", "kafka.sasl_mechanism: expected one that"),
        ("kafka", "ssl_cafile", "# ssl_cafile", "kafka.ssl_cafile: expected the authority that signed"),
        ("kafka", "ca.pem", "missing.pem", "kafka.ssl_cafile: expected a file that can be read"),
        ("kafka", "/etc/touchline/ca.pem", "{certificates.key}", "kafka.ssl_cafile: expected certificates and keys as"),
        ("kafka", "SASL_SSL", "PLAINTEXT", "kafka.security_protocol: expected SSL or SASL_SSL"),
        ("kafka", "SASL_SSL", "SASL_PLAINTEXT", "kafka.security_protocol: expected SSL or SASL_SSL"),
        ("kafka", "kafka-1:9093", "{kafka.plain}", "kafka.security_protocol: expected PLAINTEXT or SASL_PLAINTEXT"),
        (
            "redis",
            "s3cret%26more",
            "guessed",
            "redis.url: expected a user and password that it takes, got rediss://touchline:***@",
        ),
        ("redis", "touchline:s3cret%26more@", "", "redis.url: expected a user and password that it takes, got rediss"),
        ("redis", "ssl_cafile", "# ssl_cafile", "redis.ssl_cafile: expected the authority that signed"),
        ("redis", "rediss:", "redis:", "redis.url: expected rediss:// (this Redis speaks TLS)"),
        ("redis", "redis:6379", "{plain_redis}", "redis.url: expected redis:// (this Redis speaks no TLS)"),
        ("redis", "rediss:", "rediss+cluster:", "redis.url: expected redis:// or rediss:// (this Redis is no cluster)"),
        ("redis", "rediss:", "http:", "redis.url: expected redis://, rediss://, redis+cluster:// or rediss+cluster://"),
    ],
)
async def test_a_wrong_setting_is_named(
    secured: Secured, tmp_path: Path, server: str, right: str, wrong: str, said: str
) -> None:
    tables = dict(zip(ASKING, re.split(r"(?=\[redis\])", WRITTEN), strict=True))
    tables[server] = tables[server].replace(right, wrong, 1)
    place = place_of(secured, tmp_path, "".join(tables.values()))

    await asyncio.to_thread(refused, place, said, *ASKING[server])


async def test_no_process_waits_for_servers_that_a_wrong_password_keeps_it_out_of(
    secured: Secured, tmp_path: Path
) -> None:
    kafka = place_of(secured, tmp_path, WRITTEN.replace("s3cret&more", "guessed"))
    said = "kafka.sasl_username, kafka.sasl_password"
    for command in ("worker", "web", "deliver", "dev", "wait"):
        await asyncio.to_thread(ended, kafka, said, command)

    redis = place_of(secured, tmp_path, WRITTEN.replace("s3cret%26more", "guessed"))
    await asyncio.to_thread(ended, redis, "redis.url", "worker")


def refused(place: Place, said: str, *command: str) -> None:
    """The command ends with one line that says so."""
    result = place.run(*command, code=2)
    gc.collect()
    assert result.stderr.startswith(f"touchline: {said}"), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "s3cret" not in result.stderr


def ended(place: Place, said: str, command: str) -> None:
    """The process ends by itself, with one line that says so."""
    done = subprocess.run(
        (sys.executable, "-m", "streams.cli", command),
        env={**os.environ, **place.environ, "PYTHONPATH": str(ROOT)},
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"touchline: {said}")
