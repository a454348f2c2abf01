"""What accounts cost: their memory, and recomputing them all after a change of the rules."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from msgspec.structs import replace

from models.settings import Lookback
from streams import entities, previews, standing, versions
from streams.topics import OUTSIDE
from tests import bench_facts
from tests.bench_facts import BEGIN_MS, DAY_MS, Arrival, call, deal_change, produce
from tests.bench_load import load
from tests.bench_measures import Bench, used_memory
from tests.bench_rig import Figure, Ground

RULES_FACTS = 300_000
RULES_LOAD_A_SECOND = 5_000
RULES_SECONDS = 240.0
PREVIEW = "bench"
ACCOUNTS = 5_000
DEAL_STAGES = ("new", "demo", "proposal", "closed_won")


async def rules_change(bench: Bench) -> list[Figure]:
    """Another lookback is previewed, all credits with it, while 5,000 facts a second go on flowing in."""
    facts = min(RULES_FACTS, bench.facts)
    async with bench.rig.ground("rules") as ground, ground.worker() as worker:
        bench.tell(f"{facts:,} facts, then other rules beside them")
        await produce(ground.settings, bench_facts.arrivals(facts))
        await ground.all_in_totals(worker, bench.patience_seconds)
        counted = {
            kind: len(await entities.names_of(ground.redis, ground.settings, kind)) for kind in ("account", "deal")
        }
        async with load(ground.settings, bench_facts.endless(), RULES_LOAD_A_SECOND):
            seconds = await _previewed(ground)
    return [
        Figure("a change of rules: all facts recomputed beside the flow", [facts / seconds], "facts/s"),
        Figure("a change of rules: accounts", [counted["account"] / seconds], "accounts/s"),
        Figure("a change of rules: deals", [counted["deal"] / seconds], "deals/s"),
    ]


async def _previewed(ground: Ground) -> float:
    """Seconds from asking for the preview until it has read all that was there when it was asked for."""
    async with standing.ends_reader(ground.settings) as ends:
        target = await ends(OUTSIDE)
        rules = replace(ground.settings, lookback=Lookback(lead=60, opportunity=60, won=60))
        begun = time.perf_counter()
        await previews.begin(ground.redis, rules, PREVIEW)
        theirs = await versions.in_force(ground.redis, ground.settings, PREVIEW)
        async with asyncio.timeout(RULES_SECONDS):
            while (await standing.read_standing(ground.redis, theirs)).behind(target):
                await asyncio.sleep(0.1)
        return time.perf_counter() - begun


# --- memory -----------------------------------------------------------------------------------


async def memory_of_accounts(bench: Bench) -> list[Figure]:
    """What Redis holds for another account, person, touch and deal: each kind added to the ones before."""
    kinds = {
        "an account with a person and a call": _accounts,
        "a second person": _persons,
        "a touch": _touches,
        "a deal": _deals,
    }
    figures = []
    async with bench.rig.ground("accounts") as ground:
        async with ground.worker():
            pass
        before = await used_memory(ground)
        for kind, (made, many) in ((kind, make()) for kind, make in kinds.items()):
            bench.tell(f"memory of {kind}")
            await produce(ground.settings, made)
            async with ground.worker() as worker:
                await ground.all_in_totals(worker, 120.0)
            now = await used_memory(ground)
            figures.append(Figure(f"Redis for {kind}", [(now - before) / many], "bytes"))
            before = now
    return figures


def _accounts() -> tuple[Iterator[Arrival], int]:
    return (_call(number, "first", 0) for number in range(ACCOUNTS)), ACCOUNTS


def _persons() -> tuple[Iterator[Arrival], int]:
    return (_call(number, "second", 1) for number in range(ACCOUNTS)), ACCOUNTS


def _touches() -> tuple[Iterator[Arrival], int]:
    return (_call(number, "first", day) for number in range(ACCOUNTS) for day in range(2, 10)), 8 * ACCOUNTS


def _deals() -> tuple[Iterator[Arrival], int]:
    changes = (
        deal_change(f"D{number}", _domain(number), stage, BEGIN_MS + (10 + step) * DAY_MS, 1_000 + number)
        for number in range(ACCOUNTS)
        for step, stage in enumerate(DEAL_STAGES)
    )
    return changes, ACCOUNTS


def _domain(number: int) -> str:
    return f"account{number}.com"


def _call(number: int, who: str, day: int) -> Arrival:
    return call(f"{number}-{who}-{day}", f"{who}@{_domain(number)}", BEGIN_MS + day * DAY_MS + number)


MEASUREMENTS: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {
    "accounts": memory_of_accounts,
    "rules": rules_change,
}
LIMIT_SECONDS = {"accounts": 150.0, "rules": 300.0}
