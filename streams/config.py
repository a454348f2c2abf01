"""Which settings hold here, and how clients are made from them.

The first that says where a server is wins:
    1. the environment: TOUCHLINE_KAFKA, TOUCHLINE_REDIS, TOUCHLINE_WEB
    2. a running `touchline dev` of this folder (.touchline/dev.json)
    3. touchline.toml, or the file that TOUCHLINE_CONFIG names
Kafka's password may come from TOUCHLINE_KAFKA_PASSWORD. Everything else comes from the file; what
it does not say has the defaults of models.settings.
"""

import fcntl
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec.structs import replace

from models.errors import BadInput
from models.settings import Lanes, Settings, parse_settings

FILE = "touchline.toml"
DEV_FOLDER = ".touchline"
DEV_FILE = "dev.json"
DEV_LOCK = "dev.lock"
MASK = "***"
"""Stands for a secret in whatever is shown."""
PREVIEW_VARIABLE = "TOUCHLINE_PREVIEW"
"""Names the version that a worker computes beside the live one; set by the worker that starts it."""


class Running(msgspec.Struct, frozen=True):
    """What a running `touchline dev` serves at, as it stands in dev.json."""

    pid: int
    kafka: str
    redis: str
    web: str


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None, *, find_dev: bool = True) -> Settings:
    """The settings that hold in a folder (by default: this process's own environment and folder).

    Raises BadInput when the file cannot be read or says something impossible.
    """
    environ = os.environ if environ is None else environ
    cwd = cwd or Path.cwd()
    settings = _read(environ, cwd)
    running = running_dev(cwd / DEV_FOLDER) if find_dev else None
    if running:
        settings = _at(settings, running.kafka, running.redis, running.web)
    settings = _at(
        settings,
        environ.get("TOUCHLINE_KAFKA", ""),
        environ.get("TOUCHLINE_REDIS", ""),
        environ.get("TOUCHLINE_WEB", ""),
    )
    password = environ.get("TOUCHLINE_KAFKA_PASSWORD") or settings.kafka.sasl_password
    kafka = replace(settings.kafka, sasl_password=password)
    return replace(settings, kafka=kafka, lanes=_named(settings.lanes, environ))


def _named(lanes: Lanes, environ: Mapping[str, str]) -> Lanes:
    """This worker's name, and the preview that it computes where it was started for one."""
    instance = environ.get("TOUCHLINE_INSTANCE", lanes.instance)
    version = environ.get(PREVIEW_VARIABLE, "")
    return replace(lanes, instance=instance, version=version, preview=bool(version))


def running_dev(folder: Path) -> Running | None:
    """What a `touchline dev` on this data folder serves at; None when none is running and ready.

    A running one holds the lock file, so what a killed one left behind deceives nobody.
    """
    try:
        with (folder / DEV_LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pass
    except OSError:
        return None
    try:
        return msgspec.json.decode((folder / DEV_FILE).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None


def kafka_options(settings: Settings) -> dict[str, Any]:
    """The keyword arguments with which every aiokafka client connects.

    Raises BadInput when no Kafka is known.
    """
    kafka = settings.kafka
    if not kafka.bootstrap:
        raise BadInput("kafka.bootstrap", "host:port (start `touchline dev`, or set TOUCHLINE_KAFKA)", "nothing")
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap.split(",")],
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if kafka.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password
    return options


def redis_client(settings: Settings, **options: Any) -> Any:
    """An asyncio Redis client (redis.asyncio.Redis, or RedisCluster for redis+cluster:// and rediss+cluster://).

    `options` go to the client. Raises BadInput when no Redis is known or the URL is none.
    """
    from streams import redis_clients

    url = settings.redis.url
    if not url:
        raise BadInput("redis.url", "redis://host:port (start `touchline dev`, or set TOUCHLINE_REDIS)", "nothing")
    scheme, _, rest = url.partition("://")
    kind, _, cluster = scheme.partition("+")
    if kind == "rediss" and settings.redis.ssl_cafile:
        options["ssl_ca_certs"] = _readable("redis.ssl_cafile", settings.redis.ssl_cafile)
    try:
        return redis_clients.client(f"{kind}://{rest}", is_cluster=cluster == "cluster", **options)
    except ValueError as error:
        expected = "redis://, rediss://, redis+cluster:// or rediss+cluster://, then user:password@host:port"
        raise BadInput("redis.url", expected, without_password(url)) from error


def addresses(settings: Settings) -> tuple[str, str]:
    """Where Kafka and Redis are, for people to read."""
    return settings.kafka.bootstrap, without_password(settings.redis.url)


def without_password(url: str) -> str:
    """A URL of Redis that can be shown."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    place = f"{user.partition(':')[0]}:{MASK}@{host}" if ":" in user else parts.netloc
    query = [(name, MASK if name == "password" else value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(netloc=place, query=urlencode(query, safe="*")))


def _read(environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings of the file; the defaults when there is none and none was named."""
    named = environ.get("TOUCHLINE_CONFIG")
    path = cwd / (named or FILE)
    if not named and not path.exists():
        return Settings()
    try:
        return parse_settings(tomllib.loads(path.read_text()))
    except OSError as error:
        raise BadInput("TOUCHLINE_CONFIG", "a file that can be read", f"{path} ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(str(path), "TOML", str(error)) from error


def _at(settings: Settings, kafka: str, redis: str, web: str) -> Settings:
    """The settings with the addresses that are given."""
    if kafka:
        settings = replace(settings, kafka=replace(settings.kafka, bootstrap=kafka))
    if redis:
        settings = replace(settings, redis=replace(settings.redis, url=redis))
    if web:
        settings = replace(settings, web=_web_at(settings, web))
    return settings


def _web_at(settings: Settings, address: str) -> Any:
    """The web settings for http://host:port."""
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not port.isdigit():
        raise BadInput("TOUCHLINE_WEB", "http://host:port", address)
    return replace(settings.web, host=host, port=int(port), address=address)


def _ssl_context(settings: Settings) -> Any:
    from aiokafka.helpers import create_ssl_context

    kafka = settings.kafka
    files = {name: getattr(kafka, name) for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")}
    named = {name: _readable(f"kafka.{name}", file) for name, file in files.items() if file}
    try:
        return create_ssl_context(**{name.removeprefix("ssl_"): file for name, file in named.items()})
    except OSError as error:  # ssl.SSLError among them
        where = ", ".join(f"kafka.{name}" for name in named) or "kafka.security_protocol"
        raise BadInput(where, "certificates and keys as PEM", f"{', '.join(named.values())} ({error})") from error


def _readable(setting: str, file: str) -> str:
    """The file's name, when it can be read."""
    try:
        with open(file, "rb"):
            return file
    except OSError as error:
        raise BadInput(setting, "a file that can be read", f"{file} ({error.strerror})") from error


def write_running(folder: Path, running: Running) -> None:
    """Say where this `touchline dev` serves."""
    part = folder / f"{DEV_FILE}.part"
    part.write_text(json.dumps(msgspec.structs.asdict(running)) + "\n")
    part.replace(folder / DEV_FILE)
