"""How soon an alert reaches its receiver: from the fact that warmed an account to the webhook."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

import msgspec
from aiokafka import AIOKafkaProducer

from models.settings import Settings
from streams.config import kafka_options
from streams.topics import full_name
from tests import bench_facts
from tests.bench_facts import iso
from tests.bench_load import load
from tests.bench_measures import LOAD_A_SECOND, RUNS, Bench
from tests.bench_rig import Figure
from tests.receiving import Receiver, receiving, to_hook

ALERTS, ALERT_SECONDS = 150, 0.05
READY_SECONDS, LAST_SECONDS = 12.0, 40.0


async def alerts(bench: Bench) -> list[Figure]:
    """Demos of accounts never seen before, among 2,000 facts a second; each warms its account."""
    runs: list[list[float]] = []
    async with receiving() as receiver, bench.rig.ground("alerts") as ground, ground.worker():
        deliverer = ground.role("deliver", ["-m", "streams.cli", "deliver"], more=to_hook(receiver.url))
        try:
            async with (
                load(ground.settings, bench_facts.endless(), LOAD_A_SECOND),
                AIOKafkaProducer(**kafka_options(ground.settings), linger_ms=0) as kafka,
            ):
                await asyncio.sleep(READY_SECONDS)
                for run in range(RUNS):
                    bench.tell(f"alerts at {LOAD_A_SECOND:,} facts/s, run {run + 1} of {RUNS}")
                    runs.append(await _delays(ground.settings, kafka, receiver, run))
        finally:
            await deliverer.stop()
    cuts = [quantiles(delays, n=100, method="inclusive") for delays in runs]
    return [
        Figure("an alert, from the fact to the delivered webhook: median", [cut[49] * 1e3 for cut in cuts], "ms"),
        Figure("the same: 99th percentile", [cut[98] * 1e3 for cut in cuts], "ms"),
    ]


async def _delays(settings: Settings, kafka: AIOKafkaProducer, receiver: Receiver, run: int) -> list[float]:
    """Seconds from sending each fact until its alert arrived."""
    begun: dict[str, float] = {}
    for number in range(ALERTS):
        account = f"alert-{run}-{number}.com"
        fact = {
            "touchId": account,
            "timestamp": iso(int(time.time() * 1000)),
            "person": f"ann@{account}",
            "kind": "demo",
        }
        begun[account] = time.time()
        await kafka.send(full_name(settings, "touches"), msgspec.json.encode(fact), account.encode())
        await asyncio.sleep(ALERT_SECONDS)
    arrived = await _all_arrived(receiver, begun)
    return [arrived[account] - at for account, at in begun.items()]


async def _all_arrived(receiver: Receiver, wanted: dict[str, float]) -> dict[str, float]:
    """Wait for the alerts of these accounts; when each came. RuntimeError when it takes too long: the lanes lag."""
    give_up = time.monotonic() + LAST_SECONDS
    while len(arrived := _arrived(receiver, wanted)) < len(wanted):
        if time.monotonic() > give_up:
            raise RuntimeError(f"{len(arrived)} of {len(wanted)} alerts {LAST_SECONDS:.0f} s after the last fact")
        await asyncio.sleep(0.1)
    return arrived


def _arrived(receiver: Receiver, wanted: dict[str, float]) -> dict[str, float]:
    found = {request.json["account"]["id"]: request.at for request in receiver.requests}
    return {account: at for account, at in found.items() if account in wanted}


MEASUREMENTS: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {"alerts": alerts}
LIMIT_SECONDS = {"alerts": 180.0}
