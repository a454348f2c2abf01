"""Three public data sets go through their mapping files, and every total is what plain sums over the files say.

The expected totals are computed here from the CSV files alone, by the written rules, with none of
the product's code: a session or lead is a touch, an order or closed deal a win of its person.
"""

import csv
import gzip
import os
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from models.attribution import BUILT_IN as PRODUCT_MODELS
from models.recompute import RawFact, recompute
from models.settings import Settings
from models.vectors import numbers_of
from streams import children, reports
from streams.config import redis_client
from streams.load import Loading, load, open_rows
from streams.mapping import read_map
from streams.reference import rules_from
from streams.topics import create_topics
from streams.waiting import until_caught_up
from tests import oracle
from tests.conftest import shared_data

pytestmark = pytest.mark.slow

MAPS = Path(__file__).parent / "maps"
LOOKBACK = timedelta(days=90)
HALF_LIFE_MICROSECONDS = 7 * 86_400 * 1_000_000
RECORDED_AT = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000

Record = tuple[str, bytes, int]
"""Topic, value and record time of a fact, as Kafka keeps it."""

Cells = dict[tuple[str, str, str, str, str | None], tuple[int, int]]
"""(conversion, model, dimension, month, value) → (millionths of a conversion, cents)."""

Loads = tuple[tuple[str, str, str], ...]
"""Topic, data file and map of each load."""

FUZZY_FACTORY: Loads = (
    ("page-views", "website_sessions_first5000.csv.gz", "fuzzy_factory_sessions.toml"),
    ("deal-changes", "orders.csv.gz", "fuzzy_factory_orders.toml"),
    ("billing", "order_item_refunds.csv.gz", "fuzzy_factory_refunds.toml"),
)
CRM: Loads = (("deal-changes", "sales_pipeline.csv.gz", "crm_sales_opportunities.toml"),)
OLIST: Loads = (
    ("touches", "olist_marketing_qualified_leads_dataset.csv.gz", "olist_leads.toml"),
    ("deal-changes", "olist_closed_deals_dataset.csv.gz", "olist_deals.toml"),
)

MODELS: dict[str, tuple[dict[str, str], str]] = {
    "first_touch": ({"first": "100"}, "0"),
    "last_touch": ({"last": "100"}, "0"),
    "last_non_direct": ({"last_non_direct": "100"}, "0"),
    "lead_creation": ({"lead": "100"}, "0"),
    "opportunity_creation": ({"opportunity": "100"}, "0"),
    "linear": ({}, "100"),
    "position_based": ({"first": "40", "last": "40"}, "20"),
    "u_shaped": ({"first": "40", "lead": "40"}, "20"),
    "w_shaped": ({"first": "30", "lead": "30", "opportunity": "30"}, "10"),
    "full_path": ({"first": "22.5", "lead": "22.5", "opportunity": "22.5", "close": "22.5"}, "10"),
    "time_decay": ({}, "100"),
}
"""Model → percent of its named positions, and of the rest."""


class Touch(NamedTuple):
    """A session or a lead's first contact; ordered by time, then id."""

    at: datetime
    id: str
    channel: str
    source: str | None
    landing_page: str | None


class Conversion(NamedTuple):
    """A moment that shares its cents out over touches; `milestones` are lead, opportunity, close."""

    kind: str
    at: datetime
    cents: int
    touches: list[Touch]
    milestones: dict[str, datetime]
    refunds: list[tuple[datetime, int]]


# ---- the plain calculation -------------------------------------------------------------------


def expected_cells(conversions: Iterable[Conversion], dimensions: Iterable[str]) -> Cells:
    """The totals by month, as the rules have them."""
    cells: dict[tuple[str, str, str, str, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for conversion in conversions:
        for model in MODELS:
            touches, weights = shares_of(model, conversion)
            bookings = [(conversion.at, 1_000_000, conversion.cents)]
            bookings += [(at, 0, -cents) for at, cents in conversion.refunds]
            for at, count, cents in bookings:
                for touch, millionths, part in zip(
                    touches, apportion(count, weights), apportion(cents, weights), strict=True
                ):
                    for dimension in dimensions:
                        value = "unattributed" if touch is None else getattr(touch, dimension)
                        cell = cells[conversion.kind, model, dimension, f"{at:%Y-%m}", value]
                        cell[0] += millionths
                        cell[1] += part
    return {key: (count, cents) for key, (count, cents) in cells.items() if count or cents}


def shares_of(model: str, conversion: Conversion) -> tuple[list[Touch | None], list[Fraction]]:
    """The touches in reach with their weights; [None] when nothing earns the credit."""
    touches = sorted(t for t in conversion.touches if conversion.at - LOOKBACK <= t.at <= conversion.at)
    if not touches:
        return [None], [Fraction(1)]
    if model == "time_decay":
        return list(touches), [decay(conversion.at - touch.at) for touch in touches]
    named, rest = MODELS[model]
    places = {position: place_of(position, touches, conversion.milestones) for position in named}
    held = {position: place for position, place in places.items() if place is not None}
    if named and not held:
        return [None], [Fraction(1)]
    weights = [Fraction(0)] * len(touches)
    others = [place for place in range(len(touches)) if place not in held.values()]
    for place in others:
        weights[place] = Fraction(rest) / len(others)
    for position, place in held.items():
        present = sum(Fraction(named[each]) for each in held)
        for_named = 100 - (Fraction(rest) if others else 0)
        weights[place] += for_named * Fraction(named[position]) / present
    return list(touches), weights


def place_of(position: str, touches: list[Touch], milestones: Mapping[str, datetime]) -> int | None:
    """Which touch holds the position."""
    if position == "first":
        return 0
    if position == "last":
        return len(touches) - 1
    if position == "last_non_direct":
        return max((i for i, t in enumerate(touches) if t.channel != "direct"), default=len(touches) - 1)
    moment = milestones.get(position)
    if moment is None:
        return None
    return max((i for i, touch in enumerate(touches) if touch.at <= moment), default=None)


def decay(age: timedelta) -> Fraction:
    """2^(−age / 7 days), to fifty digits."""
    with localcontext(prec=50):
        halvings = Decimal(age // timedelta(microseconds=1)) / HALF_LIFE_MICROSECONDS
        return Fraction(Decimal(2) ** -halvings)


def apportion(amount: int, weights: list[Fraction]) -> list[int]:
    """Shares that add up: rounded down, what is left to the largest fractions, the earlier first."""
    exact = [abs(amount) * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_fraction = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_fraction[: abs(amount) - sum(shares)]:
        shares[i] += 1
    return [-share if amount < 0 else share for share in shares]


def rows(file: Path) -> Iterator[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cents_of(text: str) -> int:
    cents = Decimal(text) * 100
    assert cents == int(cents)
    return int(cents)


def fuzzy_factory_conversions(data: Path) -> list[Conversion]:
    """Each order a win of its shopper, by the sessions of the shopper; refunds at their own time."""
    sessions: dict[str, list[Touch]] = defaultdict(list)
    for row in rows(data / "website_sessions_first5000.csv.gz"):
        touch_id = f"session-{row['website_session_id']}"
        channel, source = session_origin(row["utm_source"], row["http_referer"])
        sessions[row["user_id"]].append(Touch(moment(row["created_at"]), touch_id, channel, source, None))
    refunds: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for row in rows(data / "order_item_refunds.csv.gz"):
        refunds[row["order_id"]].append((moment(row["created_at"]), cents_of(row["refund_amount_usd"])))
    orders = list(rows(data / "orders.csv.gz"))
    first_seen = {user: min(touch.at for touch in touches) for user, touches in sessions.items()}
    for row in orders:
        at = moment(row["created_at"])
        first_seen[row["user_id"]] = min(at, first_seen.get(row["user_id"], at))
    return [
        Conversion(
            kind="won",
            at=moment(row["created_at"]),
            cents=cents_of(row["price_usd"]),
            touches=sessions.get(row["user_id"], []),
            milestones={
                "lead": first_seen[row["user_id"]],
                "opportunity": moment(row["created_at"]),
                "close": moment(row["created_at"]),
            },
            refunds=refunds[row["order_id"]],
        )
        for row in orders
    ]


def session_origin(utm_source: str, referrer: str) -> tuple[str, str | None]:
    """Channel and source of a session: the engines' advertisements, their results, or nothing."""
    if utm_source != "NULL":
        return "paid_search", utm_source
    domain = {"https://www.gsearch.com": "google.com", "https://www.bsearch.com": "bing.com", "NULL": None}[referrer]
    return ("organic_search", domain) if domain else ("direct", None)


def olist_conversions(data: Path) -> list[Conversion]:
    """Each lead a conversion of its person, each closed deal a win by the lead's one touch.

    151 are won more than 90 days (150 more than 90 whole days) after the touch, one before it.
    """
    wins = {row["mql_id"]: row for row in rows(data / "olist_closed_deals_dataset.csv.gz")}
    conversions = []
    for row in rows(data / "olist_marketing_qualified_leads_dataset.csv.gz"):
        touch = olist_touch(row)
        won = moment(wins[row["mql_id"]]["won_date"]) if row["mql_id"] in wins else None
        lead = min(touch.at, won) if won else touch.at
        conversions.append(Conversion("lead", lead, 0, [touch], {"lead": lead}, []))
        if won:
            milestones = {"lead": lead, "opportunity": won, "close": won}
            cents = cents_of(wins[row["mql_id"]]["declared_monthly_revenue"])
            conversions.append(Conversion("won", won, cents, [touch], milestones, []))
    return conversions


def olist_touch(row: Mapping[str, str]) -> Touch:
    """The origin is the source; social is organic, publicity of other kinds is other."""
    origin = "" if row["origin"] == "unknown" else row["origin"]
    channels = {"": "unknown", "social": "organic_social", "direct_traffic": "direct", "other_publicities": "other"}
    channel = channels.get(origin, origin)
    return Touch(moment(row["first_contact_date"]), row["mql_id"], channel, origin or None, row["landing_page_id"])


# ---- the product's side ----------------------------------------------------------------------


def mapped_facts(data: Path, loads: Loads) -> list[Record]:
    """What `touchline load` would produce, without Kafka; no row may be refused."""
    records: list[Record] = []
    for topic, file, map_file in loads:
        loading = Loading(topic, Settings())
        with ExitStack() as closing:
            mapping = read_map((MAPS / map_file).read_text(), topic, map_file)
            opened = open_rows(str(data / file), mapping, closing)
            while (chunk := loading.records(opened, 1000)) is not None:
                records += [(topic, value, RECORDED_AT) for _, value in chunk]
        assert loading.result().reasons == {}
    return records


class Books(NamedTuple):
    """Totals by month, and open deals by stage as (count, cents)."""

    cells: Cells
    pipeline: dict[str | None, tuple[int, int]]


def oracle_books(records: list[Record]) -> Books:
    """The books of the tests' own reference calculator."""
    books = oracle.recompute(records)
    return Books(by_month(books.credits), dict(books.pipeline))


def product_books(records: list[Record]) -> Books:
    """The books of the product's batch recomputation."""
    books = recompute((RawFact(*record) for record in records), rules_from(Settings()))
    credits = {
        (cell.conversion, model, cell.dimension, cell.day, cell.value): (numbers[2 * place], numbers[2 * place + 1])
        for cell, numbers in (
            (cell, numbers_of(vector, 2 * len(PRODUCT_MODELS))) for cell, vector in books.cells.items()
        )
        for place, model in enumerate(PRODUCT_MODELS)
        if model in MODELS
    }
    return Books(by_month(credits), {stage: (count, amount) for stage, (count, amount) in books.pipeline.items()})


def by_month(credits: Mapping[tuple[str, str, str, str, str | None], tuple[int, int]]) -> Cells:
    """Totals by day, added up by month."""
    cells: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for (kind, model, dimension, day, value), (count, cents) in credits.items():
        cell = cells[kind, model, dimension, day[:7], value]
        cell[0] += count
        cell[1] += cents
    return {key: (count, cents) for key, (count, cents) in cells.items() if count or cents}


def chosen(cells: Cells, kinds: set[str], dimensions: set[str]) -> Cells:
    return {key: cell for key, cell in cells.items() if key[0] in kinds and key[2] in dimensions}


def total(cells: Cells, kind: str, value: Callable[[str | None], bool] = lambda value: True) -> tuple[int, int]:
    """Conversions and cents of all months under linear, by channel."""
    found = [cell for key, cell in cells.items() if key[:3] == (kind, "linear", "channel") and value(key[4])]
    return sum(count for count, _ in found) // 1_000_000, sum(cents for _, cents in found)


BOOKS = pytest.mark.parametrize("books_of", [oracle_books, product_books], ids=["oracle", "recompute"])


# ---- Maven Fuzzy Factory ---------------------------------------------------------------------


@BOOKS
def test_every_cent_of_the_fuzzy_factory_is_in_its_month_channel_and_model(
    books_of: Callable[[list[Record]], Books],
) -> None:
    data = shared_data("maven_fuzzy_factory")
    dimensions = {"channel", "source"}

    books = books_of(mapped_facts(data, FUZZY_FACTORY))

    assert chosen(books.cells, {"won"}, dimensions) == expected_cells(fuzzy_factory_conversions(data), dimensions)
    assert total(books.cells, "won") == (32_313, 193_850_975 - 8_533_869)
    assert books.pipeline == {}


def test_the_orders_of_the_first_sessions_have_one_touch_in_reach_or_two() -> None:
    data = shared_data("maven_fuzzy_factory")
    with_sessions = {row["order_id"] for row in rows(data / "orders.csv.gz") if int(row["website_session_id"]) <= 5000}
    orders = [row["order_id"] for row in rows(data / "orders.csv.gz")]

    conversions = dict(zip(orders, fuzzy_factory_conversions(data), strict=True))

    reach = [len(shares_of("linear", conversions[order])[0]) for order in with_sessions]
    assert (reach.count(1), reach.count(2), len(reach)) == (139, 10, 149)
    assert sum(conversions[order].cents for order in with_sessions) == 744_851
    assert sum(cents for order in with_sessions for _, cents in conversions[order].refunds) == 29_994


# ---- CRM Sales Opportunities -----------------------------------------------------------------


@BOOKS
def test_the_crm_deals_are_won_in_their_months_and_open_in_their_stages(
    books_of: Callable[[list[Record]], Books],
) -> None:
    data = shared_data("crm_sales_opportunities")
    expected: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows(data / "sales_pipeline.csv.gz"):
        cents = cents_of(row["close_value"] or "0")
        months = {"opportunity": row["engage_date"] or "2017-12-31"}
        months |= {"won": row["close_date"]} if row["deal_stage"] == "Won" else {}
        for kind, day in months.items():
            expected[kind, day[:7]][0] += 1_000_000
            expected[kind, day[:7]][1] += cents

    books = books_of(mapped_facts(data, CRM))

    assert chosen(books.cells, {"opportunity", "won"}, set(oracle.DIMENSIONS)) == {
        (kind, model, dimension, month, "unattributed"): (count, cents)
        for (kind, month), (count, cents) in expected.items()
        for model in MODELS
        for dimension in oracle.DIMENSIONS
    }
    assert total(books.cells, "won") == (4_238, 1_000_553_400)
    assert total(books.cells, "opportunity")[0] == 8_800
    assert books.pipeline == {"Engaging": (1_589, 0), "Prospecting": (500, 0)}


# ---- Olist -----------------------------------------------------------------------------------


@BOOKS
def test_olist_leads_and_wins_are_credited_to_their_origins_and_landing_pages(
    books_of: Callable[[list[Record]], Books],
) -> None:
    data = shared_data("olist_funnel")
    dimensions = {"channel", "source", "landing_page"}

    books = books_of(mapped_facts(data, OLIST))

    assert chosen(books.cells, {"lead", "won"}, dimensions) == expected_cells(olist_conversions(data), dimensions)
    assert total(books.cells, "lead")[0] == 8_000
    assert total(books.cells, "won")[0] == 842
    assert total(books.cells, "won", lambda channel: channel == "unattributed")[0] == 151 + 1


def test_olist_deals_and_leads_by_origin_are_those_of_its_files() -> None:
    data = shared_data("olist_funnel")
    books = recompute((RawFact(*record) for record in olist_with_unknown(data)), rules_from(Settings()))
    origin = {person: touch.source for journey in books.journeys.values() for person, touch in journey}
    contact = {name: f"seller-{name.removeprefix('deal-')}" for name in books.deals}

    leads, deals = Counter(map(origin.get, books.leads)), Counter(origin[contact[name]] for name in books.deals)

    assert {name: (deals[name], leads[name]) for name in ("organic_search", "paid_search", "unknown", "social")} == {
        "organic_search": (271, 2_296),
        "paid_search": (195, 1_586),
        "unknown": (179, 1_099),
        "social": (75, 1_350),
    }


def olist_with_unknown(data: Path) -> list[Record]:
    """The facts of both files, an origin "unknown" told from none."""
    touches, deals = mapped_facts(data, OLIST[:1]), mapped_facts(data, OLIST[1:])
    named = {f"lead-{row['mql_id']}" for row in rows(data / OLIST[0][1]) if row["origin"] == "unknown"}
    return [*deals, *(_with_source(record, named) for record in touches)]


def _with_source(record: Record, named: set[str]) -> Record:
    topic, value, at = record
    body = msgspec.json.decode(value)
    return (topic, msgspec.json.encode({**body, "source": "unknown"}), at) if body["touchId"] in named else record


# ---- end to end ------------------------------------------------------------------------------


async def test_all_three_loaded_through_real_servers_are_reported_to_the_cent(
    settings: Settings, tmp_path: Path
) -> None:
    shop, crm, olist = map(shared_data, ("maven_fuzzy_factory", "crm_sales_opportunities", "olist_funnel"))
    conversions = [*fuzzy_factory_conversions(shop), *crm_wins(crm), *olist_conversions(olist)]
    expected = expected_cells(conversions, {"channel", "source"})
    await create_topics(settings)

    async with worker(settings, tmp_path), redis_client(settings) as redis:
        for folder, loads in ((shop, FUZZY_FACTORY), (crm, CRM), (olist, OLIST)):
            for topic, file, map_file in loads:
                mapping = read_map((MAPS / map_file).read_text(), topic, map_file)
                assert (await load(settings, topic, [str(folder / file)], mapping)).refused == 0
        assert await until_caught_up(redis, settings, 180) is None

        reported = {
            ("won", model, dimension, row["period"], row[dimension]): (row["count"], row["amount"])
            for model in MODELS
            for dimension in ("channel", "source")
            for row in await reports.credits(redis, settings, model=model, by=dimension, grain="month")
        }

    assert reported == chosen(expected, {"won"}, {"channel", "source"})


def crm_wins(data: Path) -> list[Conversion]:
    """Wins of accounts without a touch."""
    won = [row for row in rows(data / "sales_pipeline.csv.gz") if row["deal_stage"] == "Won"]
    return [Conversion("won", moment(row["close_date"]), cents_of(row["close_value"]), [], {}, []) for row in won]


@asynccontextmanager
async def worker(settings: Settings, folder: Path) -> AsyncIterator[None]:
    """A worker process on the test's servers, for the length of a block."""
    (folder / "touchline.toml").write_text(f'topic_prefix = "{settings.topic_prefix}"\n')
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TOUCHLINE_KAFKA": settings.kafka.bootstrap,
        "TOUCHLINE_REDIS": settings.redis.url,
    }
    command = (sys.executable, "-c", "from streams import app, config; app.run_worker(config.load())")
    process = children.start("worker", command, folder / "worker.log", env=environ, cwd=folder)
    try:
        yield
    finally:
        await process.stop()
