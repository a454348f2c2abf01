"""How long reports take to read, with the tables that a million deals leave (tests/bench_market.py)."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import quantiles
from typing import Any

from models.filters import parse_where
from models.settings import Settings
from streams import journeys, outlook, pipeline, reports, warmth
from tests import bench_market
from tests.bench_facts import Arrival, call, deal_change, iso, produce
from tests.bench_measures import Bench
from tests.bench_rig import Figure

ORDINARY, TOUCHES = 1_000, 5
LARGE, LARGE_TOUCHES, LARGE_PEOPLE = "large.com", 10_000, 10
COUNTRY = "fr"
"""Every ordinary account's country, an attribute that is not among the setting `filters`."""
SECONDS_A_REPORT = 2.0
FEWEST, MOST = 5, 100
QUICK = 100.0
DAY_MS = 24 * 3600 * 1000

Read = Callable[[Any, Settings], Awaitable[Any]]


async def all_reports(bench: Bench) -> list[Figure]:
    """Each report again and again, in one process, as the API calls it."""
    async with bench.rig.ground("reports") as ground:
        bench.tell(f"a market of {bench_market.DEALS:,} deals")
        await bench_market.fill(ground.redis, ground.settings)
        bench.tell(f"{ORDINARY:,} accounts and a large one")
        await produce(ground.settings, _facts())
        async with ground.worker() as worker:
            await ground.all_in_totals(worker, 120.0)
        figures = []
        for name, read in _reports(ground.settings).items():
            bench.tell(f"report {name}")
            figures += _figures(name, await _timed(read, ground.redis, ground.settings))
    return figures


async def _timed(read: Read, redis: Any, settings: Settings) -> list[float]:
    """Milliseconds of each reading, of the first one too."""
    taken: list[float] = []
    ends = time.perf_counter() + SECONDS_A_REPORT
    while len(taken) < FEWEST or (len(taken) < MOST and time.perf_counter() < ends):
        begun = time.perf_counter()
        await read(redis, settings)
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def _figures(name: str, taken: list[float]) -> list[Figure]:
    cuts = quantiles(taken, n=100, method="inclusive")
    return [Figure(f"report {name}: median", [cuts[49]], "ms"), Figure("the same: 99th percentile", [cuts[98]], "ms")]


def _reports(settings: Settings) -> dict[str, Read]:
    """Every report that is measured, by what is asked."""
    year = f"{int(iso(_now())[:4]) - 1}"
    whole_year = {"since": f"{year}-01-01", "until": f"{year}-12-31"}
    odd_days = {"since": f"{year}-01-10", "until": f"{year}-11-20"}
    kept, unkept = parse_where([f"industry={bench_market.INDUSTRY}"]), parse_where([f"country={COUNTRY}"])
    five = ("first_touch", "last_touch", "linear", "u_shaped", "time_decay")

    def of(read: Callable[..., Awaitable[Any]], *ids: str, **asked: Any) -> Read:
        return lambda redis, settings: read(redis, settings, *ids, **asked)

    return {
        "credits by channel and month": of(reports.credits, model="linear", by="channel", grain="month"),
        "credits by channel of a year": of(reports.credits, model="linear", by="channel", **whole_year),
        "credits by channel from a day to a day": of(reports.credits, model="linear", by="channel", **odd_days),
        "credits by channel and day of a year": of(
            reports.credits, model="linear", by="channel", grain="day", **whole_year
        ),
        "credits of an industry by channel and month": of(
            reports.credits, model="linear", by="channel", grain="month", where=kept
        ),
        f"credits of the {ORDINARY:,} accounts of a country": of(
            reports.credits, model="linear", by="channel", where=unkept
        ),
        "five models by campaign": of(reports.compare, models=five, by="campaign"),
        "markov by channel": of(reports.credits, model="markov", by="channel", grain="month"),
        "sourced": of(reports.sourced, grain="month"),
        "pipeline": of(pipeline.pipeline),
        "pipeline by owner": of(pipeline.pipeline, by="owner"),
        "pipeline by channel": of(pipeline.pipeline, by="channel"),
        "forecast by month": of(outlook.forecast),
        "forecast by quarter": of(outlook.forecast, grain="quarter"),
        "forecast of an industry": of(outlook.forecast, where=kept),
        "velocity": of(pipeline.velocity),
        "velocity by owner and quarter": of(pipeline.velocity, by="owner", grain="quarter"),
        "funnel": of(pipeline.funnel),
        "funnel by quarter": of(pipeline.funnel, grain="quarter"),
        "warmth": of(warmth.warmth),
        "alerts": of(warmth.alerts),
        "deal": of(journeys.deal, "D0"),
        "journey": of(journeys.journey, _domain(0)),
        "account": of(reports.account, _domain(0)),
        "person": of(reports.person, f"ann@{_domain(0)}"),
        f"deal with {LARGE_TOUCHES:,} touches": of(journeys.deal, LARGE),
        f"journey of {LARGE_TOUCHES:,} touches": of(journeys.journey, LARGE),
        f"account with {LARGE_TOUCHES:,} touches": of(reports.account, LARGE),
    }


# --- accounts to open -------------------------------------------------------------------


def _facts() -> Iterator[Arrival]:
    """A deal each, won after some calls and a demo; all in the same country."""
    now = _now()
    for number in range(ORDINARY):
        domain = _domain(number)
        yield _attributes(domain, now)
        begin = now - (number % 300 + 40) * DAY_MS
        for each in range(TOUCHES):
            yield call(f"{domain}-{each}", f"ann@{domain}", begin + each * DAY_MS)
        yield from _won(f"D{number}", domain, begin + TOUCHES * DAY_MS)
        yield _demo(domain, now)
    begin = now - 80 * DAY_MS
    for each in range(LARGE_TOUCHES):
        yield call(f"{LARGE}-{each}", f"person{each % LARGE_PEOPLE}@{LARGE}", begin + each * 600_000)
    yield from _won(LARGE, LARGE, begin + LARGE_TOUCHES * 600_000)


def _now() -> int:
    return int(time.time() * 1000)


def _domain(number: int) -> str:
    return f"ordinary{number}.com"


def _won(deal: str, account: str, at: int) -> Iterator[Arrival]:
    for stage in ("new", "demo", "closed_won"):
        yield deal_change(deal, account, stage, at, 1_000)
        at += DAY_MS


def _attributes(account: str, at: int) -> Arrival:
    content = {"messageId": account, "timestamp": iso(at), "account": account, "attributes": {"country": COUNTRY}}
    return Arrival("account-changes", account, json.dumps(content).encode(), at)


def _demo(account: str, at: int) -> Arrival:
    """What warms the account, and raises an alert."""
    content = {"touchId": f"demo-{account}", "timestamp": iso(at), "person": f"ann@{account}", "kind": "demo"}
    return Arrival("touches", f"demo-{account}", json.dumps(content).encode(), at)


MEASUREMENTS: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {"reports": all_reports}
LIMIT_SECONDS = {"reports": 240.0}
