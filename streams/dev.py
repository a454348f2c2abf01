"""`touchline dev`: everything on this machine, started with one command and gone with it.

    Kafka and Redis ─▶ topics ─▶ worker, web and deliver ─▶ "it is up"

Whatever ends is started again, each time after a longer pause; when this process ends, by
Ctrl-C or kill -9, all end with it. Servers that the settings name are used, not started.

    <data>/kafka/ redis/ web/   what they keep        <data>/logs/<name>.log
    <data>/dev.json             where it serves       <data>/dev.lock   held while it runs
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from msgspec.structs import replace
from redis.exceptions import RedisError
from rich.console import Console

from models.errors import TouchlineError, Unavailable
from models.settings import Settings
from streams import artifacts, children, config, embedded
from streams.reaching import reach
from streams.topics import create_topics

INSTANCE = "dev-1"  # a stable member id: a worker started again gets its partitions back at once
WORKER_KEY = f"touchline:workers:{INSTANCE}"
ROLES: Mapping[str, Sequence[str]] = {
    "worker": (sys.executable, "-m", "streams.cli", "worker"),
    "web": (sys.executable, "-m", "streams.cli", "web"),
    "deliver": (sys.executable, "-m", "streams.cli", "deliver"),
}
READY_SECONDS = 60.0
GRACE_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0  # after so long a run the next pause is the first again

Start = Callable[[], Awaitable[children.Child]]


def run(
    data: Path = Path(config.DEV_FOLDER),
    *,
    as_json: bool = False,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    roles: Mapping[str, Sequence[str]] = ROLES,
    out: TextIO | None = None,
) -> None:
    """Start everything, keep it running, and take it down on SIGINT or SIGTERM.

    `roles` are the commands of the roles to run: "worker", "web" and "deliver", or fewer. With
    `as_json` the one line on `out` says that all is up; notices go to standard error.
    Raises TouchlineError when something does not come up, or another dev runs on `data`.
    """
    cwd = cwd or Path.cwd()
    environ = os.environ if environ is None else environ
    settings = config.load(environ, cwd, find_dev=False)
    dev = Dev(cwd / data, cwd, environ, settings, Console(stderr=as_json, highlight=False))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry, which is nobody's concern here
    with _only_one(dev.data):
        asyncio.run(dev.run(roles, lambda: _say_ready(dev, as_json, out or sys.stdout)))


class Dev:
    """What runs: one child for each server of ours and each role."""

    def __init__(self, data: Path, cwd: Path, environ: Mapping[str, str], settings: Settings, console: Console) -> None:
        self.data = data
        self.cwd = cwd
        self.environ = environ
        self.settings = settings
        self.console = console
        self.servers = _servers(settings, data)
        self.running: dict[str, children.Child] = {}

    async def run(self, roles: Mapping[str, Sequence[str]], when_up: Callable[[], None]) -> None:
        """Bring all up, call `when_up`, and keep it up until a signal comes."""
        _on_signals(asyncio.current_task())
        try:
            await self._start_servers()
            await reach(self.settings)
            await create_topics(self.settings)
            await self._start_roles(roles)
            config.write_running(self.data, self.where())
            when_up()
            await self._keep_all(roles)
        except asyncio.CancelledError:
            self.console.print("Stopping …")
        finally:
            (self.data / config.DEV_FILE).unlink(missing_ok=True)
            await self._stop()

    def where(self) -> config.Running:
        """Where everything serves."""
        settings = self.settings
        return config.Running(os.getpid(), settings.kafka.bootstrap, settings.redis.url, settings.web.address)

    async def _start_servers(self) -> None:
        """Start those that the settings do not name; the settings then name them all."""
        if self.servers:
            first = "" if artifacts.fetched() else " (the first time they are downloaded, about 60 MB)"
            self.console.print(f"Starting {' and '.join(self.servers)}{first} …")
        started = await asyncio.gather(*(start() for start in self.servers.values()))
        self.running.update(zip(self.servers, started, strict=True))
        self.settings = _served_by(self.settings, self.running, self._web_address())

    def _web_address(self) -> str:
        """The address of the settings, or a free port that stays the same from run to run."""
        web = self.settings.web
        port = web.port or embedded.remembered_ports(self.data / "web", ["web"])["web"]
        return f"http://{web.host}:{port}"

    async def _start_roles(self, roles: Mapping[str, Sequence[str]]) -> None:
        await self._forget_worker()
        for name, command in roles.items():
            self.running[name] = await self._start_role(name, command)
        probes = {"worker": self._worker_owns_partitions, "web": self._web_is_healthy}
        waited_for = (
            probes.keys() & roles.keys()
        )  # alerts are delivered from where they were left, whenever that begins
        await asyncio.gather(*(children.ready(self.running[name], probes[name], READY_SECONDS) for name in waited_for))

    async def _start_role(self, name: str, command: Sequence[str]) -> children.Child:
        where = self.where()
        environ = {
            **self.environ,
            "TOUCHLINE_KAFKA": where.kafka,
            "TOUCHLINE_REDIS": where.redis,
            "TOUCHLINE_WEB": where.web,
            "PYTHONUNBUFFERED": "1",
        }
        if name == "worker":
            environ["TOUCHLINE_INSTANCE"] = INSTANCE
        return children.start(name, command, self.data / "logs" / f"{name}.log", env=environ, cwd=self.cwd)

    async def _forget_worker(self) -> None:
        """Remove what a former worker said about itself, so that only the new one counts as ready."""
        with self._redis_errors():
            async with config.redis_client(self.settings) as redis:
                await redis.delete(WORKER_KEY)

    async def _worker_owns_partitions(self) -> bool:
        """A worker writes its key once it owns partitions."""
        with contextlib.suppress(RedisError):
            async with config.redis_client(self.settings) as redis:
                return bool(await redis.exists(WORKER_KEY))
        return False

    async def _web_is_healthy(self) -> bool:
        """GET /healthz answers 200."""
        host, _, port = self.settings.web.address.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).split(b" ")[1:2] == [b"200"]
        finally:
            writer.close()

    @contextmanager
    def _redis_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise Unavailable(f"Redis at {config.without_password(self.settings.redis.url)}: {error}") from error

    async def _keep_all(self, roles: Mapping[str, Sequence[str]]) -> None:
        """Start again whatever ends; never returns."""
        starts = self.servers | {name: self._role_starter(name, roles[name]) for name in roles}
        async with asyncio.TaskGroup() as keepers:
            for name, start in starts.items():
                keepers.create_task(self._keep(name, start))

    def _role_starter(self, name: str, command: Sequence[str]) -> Start:
        return lambda: self._start_role(name, command)

    async def _keep(self, name: str, start: Start) -> None:
        """Start one child again whenever it ends, after a pause that doubles while it does not last."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            code = await self.running[name].exited()
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self.console.print(f"{name} ended with exit code {code}: starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                self.running[name] = await start()
            except TouchlineError as error:
                self.console.print(str(error), markup=False)

    async def _stop(self) -> None:
        """Roles first, so that they can finish what they hold; then the servers."""
        servers = [self.running.pop(name) for name in self.servers if name in self.running]
        for group in (self.running.values(), servers):
            await asyncio.gather(*(child.stop(GRACE_SECONDS) for child in group))


def _servers(settings: Settings, data: Path) -> dict[str, Start]:
    """How to start the servers that the settings do not name."""
    logs = data / "logs"
    servers: dict[str, Start] = {}
    if not settings.kafka.bootstrap:
        servers["Kafka"] = lambda: embedded.start_kafka(data / "kafka", logs / "kafka.log")
    if not settings.redis.url:
        servers["Redis"] = lambda: embedded.start_redis(data / "redis", logs / "redis.log")
    return servers


def _served_by(settings: Settings, running: Mapping[str, children.Child], web: str) -> Settings:
    """The settings with the addresses of the servers we run and of the web role."""
    if "Kafka" in running:
        settings = replace(settings, kafka=replace(settings.kafka, bootstrap=running["Kafka"].address))
    if "Redis" in running:
        settings = replace(settings, redis=replace(settings.redis, url=running["Redis"].address))
    return replace(settings, web=replace(settings.web, address=web))


def _on_signals(task: "asyncio.Task[Any] | None") -> None:
    """The first SIGINT or SIGTERM cancels the task; the second ends everything at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, os._exit, 1)
        if task:
            task.cancel()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the folder's lock; Unavailable when another `touchline dev` runs on it."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / config.DEV_LOCK).open("w") as lock:
        give_up = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # somebody may be looking whether it is held
                if time.monotonic() > give_up:
                    raise Unavailable(f"another `touchline dev` is running in {data}") from None
                time.sleep(0.02)
        yield


def _say_ready(dev: Dev, as_json: bool, out: TextIO) -> None:
    """One line of JSON, or a few lines to read."""
    where = dev.where()
    if as_json:
        line = {"ready": True, "kafka": where.kafka, "redis": where.redis, "web": where.web}
        print(json.dumps(line), file=out, flush=True)
        return
    for name, value in (
        ("live page", where.web),
        ("Kafka", where.kafka),
        ("Redis", where.redis),
        ("data, logs", str(dev.data)),
    ):
        dev.console.print(f"  {name:<11}{value}", soft_wrap=True)
    dev.console.print("Touchline is up; Ctrl-C ends everything.", style="bold green")
