"""`make bench`: how fast, how small, how soon. Prints a table and writes BENCH.md.

    python -m tests.bench [--facts N] [--only NAME]… [--output FILE] [--plain]

It measures what production installs (tests/compiled.py), where there is a C compiler and not
--plain. Kafka and Redis run beside the worker on this machine, in a temporary folder, and all end
with the bench. With --only nothing is written, unless --output says where.
"""

import asyncio
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import psutil
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from tests import bench_accounts, bench_alerts, bench_measures, bench_reports, compiled
from tests.bench_measures import RUNS, TOUCH_ROUNDS, Bench
from tests.bench_rig import ROOT, Figure, Rig, rig

FACTS = 1_000_000
FILE = ROOT / "BENCH.md"
PACKAGES = ("aiokafka", "faust-streaming", "redis", "hiredis", "msgspec", "orjson", "uvloop")
KAFKA_VERSION = "4.1.1"

MEASUREMENTS = {
    **bench_measures.MEASUREMENTS,
    **bench_accounts.MEASUREMENTS,
    **bench_alerts.MEASUREMENTS,
    **bench_reports.MEASUREMENTS,
}
LIMIT_SECONDS = {
    **bench_measures.LIMIT_SECONDS,
    **bench_accounts.LIMIT_SECONDS,
    **bench_alerts.LIMIT_SECONDS,
    **bench_reports.LIMIT_SECONDS,
}

Results = dict[str, list[Figure] | str]
"""The figures of each measurement; a text when it failed."""


@click.command()
@click.option("--facts", default=FACTS, show_default=True, help="How many facts go through the lanes.")
@click.option("--only", type=click.Choice(list(MEASUREMENTS)), multiple=True, help="Measure only this.")
@click.option("--output", type=click.Path(path_type=Path), help=f"Where to write; by default {FILE.name}.")
@click.option("--plain", is_flag=True, help="Measure plain Python, not what is compiled.")
def main(facts: int, only: tuple[str, ...], output: Path | None, plain: bool) -> None:
    """Measure Touchline on this machine."""
    if not (plain or compiled.is_used() or compiled.missing()):
        _start_compiled()
    output = output or (None if only else FILE)
    begun = time.monotonic()
    results, about = uvloop.run(_measure(facts, only or tuple(MEASUREMENTS)))
    about["took"] = f"{(time.monotonic() - begun) / 60:.1f} minutes"
    _print(results)
    if output:
        output.write_text(document(results, about))
    sys.exit(any(isinstance(each, str) for each in results.values()))


def _start_compiled() -> None:
    """Begin again as a process that imports the compiled package, as all that it starts then does."""
    command = [sys.executable, "-P", "-m", "tests.bench", *sys.argv[1:]]
    os.execve(sys.executable, command, compiled.environment(compiled.installed()))


async def _measure(facts: int, names: tuple[str, ...]) -> tuple[Results, dict[str, str]]:
    console = Console(stderr=True)
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="touchline-bench-") as folder:
        async with rig(Path(folder)) as servers:
            about = await _about(servers, facts)
            begun = time.monotonic()
            bench = Bench(servers, facts, lambda what: console.print(f"{time.monotonic() - begun:5.0f} s  {what}"))
            for name in names:
                results[name] = await _one(bench, name, console)
    return results, about


async def _one(bench: Bench, name: str, console: Console) -> list[Figure] | str:
    """The figures of one measurement, or why there are none: the others go on."""
    limit = max(LIMIT_SECONDS[name], LIMIT_SECONDS[name] * bench.facts / FACTS)
    try:
        async with asyncio.timeout(limit):
            return await MEASUREMENTS[name](bench)
    except TimeoutError:
        return f"took longer than {limit:.0f} s"
    except Exception as error:
        console.print_exception()
        return f"{type(error).__name__}: {error}"


async def _about(servers: Rig, facts: int) -> dict[str, str]:
    """What the figures depend on, in words."""
    async with Redis.from_url(servers.redis_server.address) as redis:
        redis_version = (await redis.info("server"))["redis_version"]
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "facts": f"{facts:,}",
        "machine": f"{os.cpu_count()} × {_processor()}, {psutil.virtual_memory().total / 2**30:.0f} GiB memory",
        "Touchline": "compiled" if compiled.is_used() else "plain Python",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "versions": f"Kafka {KAFKA_VERSION}, Redis {redis_version}, {packages}",
    }


def _processor() -> str:
    """The processor as the system names it."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in names if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


# --- telling ------------------------------------------------------------------------------


def _print(results: Results) -> None:
    table = Table("figure", "median", "lowest … highest", "unit", "wanted", "met")
    for name, figures in results.items():
        if isinstance(figures, str):
            table.add_row(f"{name} failed: {figures}", style="red")
            continue
        for figure in figures:
            table.add_row(*_cells(figure))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _cells(figure: Figure) -> tuple[str, ...]:
    low, high = min(figure.values), max(figure.values)
    return (
        figure.what,
        _number(figure.typical),
        f"{_number(low)} … {_number(high)}",
        figure.unit,
        figure.wanted,
        figure.verdict,
    )


def _number(value: float) -> str:
    """Three figures or whole numbers."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def document(results: Results, about: dict[str, str]) -> str:
    """BENCH.md: the figures with their spread, and what they depend on."""
    lines = [
        "# Measurements",
        "",
        f"Written by `make bench` (tests/bench.py): medians and extremes of {RUNS} to {TOUCH_ROUNDS} runs.",
        "One worker process; Kafka, Redis and the bench itself run beside it on the same cores.",
        "",
        *(f"- {name}: {words}" for name, words in about.items()),
        "",
        "| figure | median | lowest … highest | unit | wanted | met |",
        "|---|---:|---:|---|---|---|",
    ]
    for name, figures in results.items():
        if isinstance(figures, str):
            first_line = figures.partition("\n")[0]
            lines.append(f"| {name} failed: {first_line} | | | | | **no** |")
        else:
            lines.extend(f"| {' | '.join(_cells(figure))} |" for figure in figures)
    lines += ["", *_HOW]
    return "\n".join(lines) + "\n"


_HOW = """## How each was measured

- **Facts through all three lanes**: all facts lie in Kafka before the worker starts on empty tables. From the moment it
  takes its first partition until the last commit; the worker's start is not in it. The mix is that of
  tests/bench_facts.py.
- **Floors** (tests/bench_floors.py): the same records read and decoded with nothing done to them; and the obvious Faust
  program, which loses everything when it ends and knows no late facts, duplicates or restatement, on 100,000 facts at
  most.
- **Memory**: `used_memory` of Redis with 50,000 anonymous visitors of three page views each, less that without them.
- **Touches**: sales calls of ten people of one account, after its deal was won, in batches of 50 that wait for each
  other, so that the price of a batch in two lanes is in it. A late touch falls before the win: all credits of the
  deal are shared out anew, which costs in proportion to its touches.
- **kill -9** under 2,000 facts/s, until every partition that the worker had was committed to by the next owner, whose
  start is in it.
- **Alerts**: demos of 150 accounts never seen before in each run, under 2,000 facts/s; each warms its account. Until
  the webhook's receiver has read the alert.
- **A change of rules**: 300,000 facts of the same mix are in the totals; then shorter lookbacks are previewed: every
  fact is read and every credit computed again in a process beside the worker, while 5,000 facts/s flow.
- **Reports**: what a partition holds of a million deals with five touches each, over three years, 15 channels, 60
  campaigns, 40 owners and 2 pipelines: 62,500 accounts are drawn and booked by the accounts' own code
  (tests/bench_market.py), their numbers doubled, and every partition has the same; cells that none of these reports
  reads are left out. Reading costs by the number of fields, not by what stands in them. Beside that 200,000 accounts
  with a warmth, and 1,001 accounts that went through the lanes. Each report is called as the API does, in one process,
  up to 100 times within 2 s; of a filter that is not kept the first, slow call is the 99th percentile.
- **Memory of accounts**: `used_memory` of Redis before and after 5,000 more of each kind, of touches eight an account.
- **Latency**: sentinels that alone fill a cell of the totals, among 2,000 facts/s, from handing one to the Kafka
  client until a poll every 2 ms sees its cell in Redis; both of these are in the figure.""".splitlines()


if __name__ == "__main__":
    main()
