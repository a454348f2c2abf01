"""The worker: a Faust app that hosts the three lanes.

    page-views, form-fills, identities ─▶ visitors ─▶ members ─▶ accounts ─▶ Redis totals

The lanes are services of the app with consumer groups of their own (streams.lane);
Faust hosts them, their timers and, later, the agents for low volumes.
"""

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import faust
import faust.app.base
import orjson
from mode import Service

from models.lanes import LANES
from models.settings import Settings, rules_fingerprint
from models.times import SECOND, to_text
from streams import children, config, hosting, logs, versions
from streams.backlog import Backlog
from streams.config import addresses, redis_client
from streams.lane import LaneService
from streams.reaching import AWAY, until_it_works, until_reached
from streams.reference import rules_from
from streams.standing import WORKER_PREFIX
from streams.topics import create_topics
from streams.waiting import PAUSE_KEY

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
HEARTBEAT_EXPIRY_SECONDS = 10
WATCH_SECONDS = 0.2
PREVIEW_POLL_SECONDS = 1.0
SWEEP_SECONDS = 3.0
MOST_SWEPT = 50_000
"""Objects: some 30 ms."""
LANE_FAILED, RULES_CHANGED = 70, 75
"""Exit codes with which a worker asks to be started again."""


class Lanes(Service):
    """The three lanes of this worker, one Redis connection pool, one heartbeat."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self.settings = self._configured = settings
        self.instance = settings.lanes.instance or f"worker-{os.getpid()}"
        self.lanes: dict[str, LaneService] = {}
        self._backlog = Backlog()
        self._rules: bytes | None = None
        self._previews: dict[str, children.Child] = {}
        self._had: dict[str, list[int]] = {}

    async def on_start(self) -> None:
        self.redis = redis_client(self.settings, max_connections=64, socket_keepalive=True)
        await until_it_works(self._prepare, lambda: self.should_stop)
        log.info("%s works for Kafka at %s, Redis at %s", self.instance, *addresses(self.settings))
        rules = rules_from(self.settings)
        for name, lane in LANES.items():
            service = self.lanes[name] = LaneService(lane, rules, self.redis, self._backlog)
            await until_it_works(service.start, lambda: self.should_stop)
        gc.freeze()
        gc.disable()  # states in memory are no cycles, and looking through them cost a seventh of the CPU

    async def on_stop(self) -> None:
        await asyncio.gather(*(lane.stop() for lane in self.lanes.values()))
        await self.redis.aclose()

    async def _prepare(self) -> None:
        """Know the rules in force, and make the topics that are missing."""
        await self._take_rules()
        await create_topics(self.settings)

    async def _take_rules(self) -> None:
        """Work under the rules that the tables are made under; new tables are made under ours."""
        version = self._configured.lanes.version
        self.settings = await versions.in_force(self.redis, self._configured, version or None)
        where = versions.rules_key(self.settings.lanes.version)
        await self.redis.setnx(where, rules_fingerprint(self.settings))
        self._rules = await self.redis.get(where)
        changes = () if version else versions.changes_between(self.settings, self._configured)
        if changes:
            names = ", ".join(change.setting for change in changes)
            log.warning("the tables keep their rules; `touchline settings preview` tries the file's %s", names)

    @Service.task
    async def _fail_with_a_lane(self) -> None:
        """End the worker when a lane failed; it begins again from the last commit."""
        failed = [asyncio.ensure_future(asyncio.shield(lane.ownership.failed)) for lane in self.lanes.values()]
        stopping = asyncio.ensure_future(self._stopped.wait())
        waiting: list[asyncio.Future[Any]] = [*failed, stopping]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in failed:
            if each.done() and (error := each.exception()):
                log.critical("a lane failed", exc_info=error)
                os._exit(LANE_FAILED)

    @Service.task
    async def _watch(self) -> None:
        """Keep pauses, and end once the tables have other rules: begun again, we work under those."""
        lanes = self.settings.lanes
        while not self.should_stop:
            await self.sleep(WATCH_SECONDS)
            try:
                keys = (PAUSE_KEY, versions.rules_key(lanes.version), versions.LIVE_KEY)
                pipeline = self.redis.pipeline(transaction=False)
                for each in keys:
                    pipeline.get(each)
                token, rules, live = await pipeline.execute()
            except AWAY:
                logs.suspect()
                continue
            for lane in self.lanes.values():
                lane.fetcher.paused = token.decode() if token else ""
            is_other = not lanes.preview and (live or b"").decode() != lanes.version
            if is_other or rules not in (None, self._rules):
                log.critical("the tables have other rules now: this worker ends")
                os._exit(RULES_CHANGED)

    @Service.task
    async def _keep_previews(self) -> None:
        """Run a worker process for each preview, so that the live lanes are not held up."""
        while not (self.should_stop or self.settings.lanes.preview):
            with contextlib.suppress(*AWAY):
                wanted = await versions.previews(self.redis)
                await self._run_previews(set(wanted))
            await self.sleep(PREVIEW_POLL_SECONDS)

    async def _run_previews(self, wanted: set[str]) -> None:
        for name in self._previews.keys() - wanted:
            await self._previews.pop(name).stop()
        for name in wanted:
            child = self._previews.get(name)
            if child is None or child.exit_code is not None:
                environ = {**os.environ, config.PREVIEW_VARIABLE: name, "TOUCHLINE_INSTANCE": self.instance}
                command = (sys.executable, "-m", "streams.cli", "worker")
                self._previews[name] = children.start(f"preview {name}", command, None, env=environ)

    @Service.task
    async def _sweep(self) -> None:
        """Collect the few cycles there are (of exceptions and clients) now and then.

        A sweep looks at what was made since the last one and holds everything up meanwhile: often, it is
        milliseconds. What a backlog makes is far more, and all of it but a few is states: that is set aside unseen.
        """
        while not self.should_stop:
            await self.sleep(SWEEP_SECONDS)
            if gc.get_count()[0] > MOST_SWEPT:
                gc.freeze()
            else:
                gc.collect(1)

    @Service.task
    async def _beat(self) -> None:
        before: dict[str, tuple[float, int]] = {}
        while not self.should_stop:
            self._tell_of_partitions()
            try:
                beat = orjson.dumps(self._heartbeat(before))
                await self.redis.set(self._beat_key(), beat, ex=HEARTBEAT_EXPIRY_SECONDS)
            except AWAY as error:
                log.debug("no heartbeat: %s", error)
            await self.sleep(
                HEARTBEAT_SECONDS if any(lane.ownership.partitions for lane in self.lanes.values()) else 0.2
            )

    def _tell_of_partitions(self) -> None:
        """Say which partitions each lane has whenever these change."""
        for name, lane in self.lanes.items():
            if (now := lane.ownership.partitions) != self._had.get(name, []):
                self._had[name] = now
                log.info("%s lane has the partitions %s", name, ", ".join(map(str, now)) or "(none)")

    def _beat_key(self) -> str:
        lanes = self.settings.lanes
        return (
            f"touchline:preview-workers:{lanes.version}:{self.instance}"
            if lanes.preview
            else WORKER_PREFIX + self.instance
        )

    def _heartbeat(self, before: dict[str, tuple[float, int]]) -> Mapping[str, Any]:
        now = time.monotonic()
        lanes = {}
        for name, lane in self.lanes.items():
            counters = lane.counters
            handled = counters.facts + counters.messages
            then, had = before.get(name, (now, handled))
            before[name] = now, handled
            rate = (handled - had) / (now - then) if now > then else 0.0
            lanes[name] = {
                **{field: getattr(counters, field) for field in counters.__struct_fields__},
                "partitions": lane.ownership.partitions,
                "rate": round(rate, 1),
            }
        at = to_text(time.time_ns() // 1000 // SECOND * SECOND)
        return {"instance": self.instance, "version": self.settings.lanes.version, "at": at, "lanes": lanes}

    @Service.task
    async def _commit_offsets(self) -> None:
        """Tell Kafka too where the lanes stand, so that ordinary lag tools work; this waits while Kafka is away."""
        while not self.should_stop:
            await self.sleep(HEARTBEAT_SECONDS)
            for lane in self.lanes.values():
                await lane.commit_offsets()


class _App(faust.App):
    """Faust without its own Kafka clients: no agent needs them yet, the lanes bring theirs."""

    class BootStrategy(faust.app.base.BootStrategy):
        enable_kafka = False


def create_app(settings: Settings) -> faust.App:
    """The Faust app, with the lanes as its service."""
    app = _App(
        f"{settings.topic_prefix}touchline",
        broker=f"kafka://{settings.kafka.bootstrap}",
        web_enabled=False,
        topic_disable_leader=True,
    )

    @app.service
    class Hosted(Lanes):
        def __init__(self, **options: Any) -> None:
            super().__init__(settings, **options)

    return app


def run_worker(settings: Settings) -> None:
    """Run a worker until it is told to stop (SIGINT, SIGTERM). Raises BadInput when settings keep it out."""
    logs.set_up(settings)
    asyncio.run(until_reached(settings))
    hosting.run(create_app(settings))
