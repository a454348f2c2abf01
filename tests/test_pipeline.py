"""What a deal adds to the statistics: stays, exits, closings and their days."""

from collections.abc import Iterable
from typing import Any

import pytest

from models.counts import add_counts, tables_in, values_in
from models.deals import Deal, conversions_of
from models.flows import ALL_TIME, Period, durations, happened, nearest_rank, tables_needed
from models.pipeline import LOST, MOVED, WON, Open, Stay, Surroundings, deal_counts, square_digits, stays_of
from models.settings import Pipeline, Settings
from models.stages import naming_tables, stage_orders
from models.times import DAY, parse_instant
from streams.reference import rules_from

RULES = rules_from(Settings(pipelines={"default": Pipeline(won=("won",), lost=("lost",))}))

NOTHING = Surroundings()


def at(day: str) -> int:
    return parse_instant(day, "test")


def deal(id: str, created: str, *stages: tuple[str, str | None], amount: int | None = None, **more: Any) -> Deal:
    moves = tuple((at(day), stage) for day, stage in stages)
    ids = tuple(f"{id}-{number}" for number in range(len(moves)))
    return Deal(id, at(created), stages=moves, amount=amount, currency="USD", named_by=ids, **more)


def tables_of(deals: Iterable[Deal], around: Surroundings = NOTHING) -> Any:
    counts: Any = {}
    for each in deals:
        add_counts(counts, deal_counts(each, conversions_of(each, RULES), around, RULES))
    return tables_in(counts)


def test_a_stay_lasts_from_the_fact_that_brought_the_deal_there_to_the_next() -> None:
    one = deal("d", "2026-01-01", ("2026-01-03", "new"), ("2026-01-10", "demo"), ("2026-02-01", "won"))

    assert stays_of(one, RULES) == [
        Stay("(none)", at("2026-01-01"), at("2026-01-03"), MOVED, "new"),
        Stay("new", at("2026-01-03"), at("2026-01-10"), MOVED, "demo"),
        Stay("demo", at("2026-01-10"), at("2026-02-01"), WON),
    ]


def test_a_deal_that_begins_in_a_stage_has_no_stay_before_it() -> None:
    assert stays_of(deal("d", "2026-01-01", ("2026-01-01", "new")), RULES) == [Stay("new", at("2026-01-01"))]


def test_a_reopened_close_is_a_move_to_the_reopened_stage_and_re_entry_a_new_stay() -> None:
    one = deal(
        "d",
        "2026-01-01",
        ("2026-01-01", "demo"),
        ("2026-01-09", "lost"),
        ("2026-02-01", "demo"),
        ("2026-02-03", "lost"),
    )

    assert stays_of(one, RULES) == [
        Stay("demo", at("2026-01-01"), at("2026-01-09"), MOVED, "demo"),
        Stay("demo", at("2026-02-01"), at("2026-02-03"), LOST),
    ]


def test_a_deal_closed_twice_exits_as_it_first_closed() -> None:
    one = deal("d", "2026-01-01", ("2026-01-01", "demo"), ("2026-01-09", "won"), ("2026-01-20", "lost"))

    assert stays_of(one, RULES) == [Stay("demo", at("2026-01-01"), at("2026-01-09"), WON)]


def test_days_are_those_of_the_reporting_zone() -> None:
    rules = rules_from(Settings(time_zone="America/New_York"))
    one = deal("d", "2026-01-02T04:00:00Z", ("2026-01-02T04:00:00Z", "demo"), ("2026-01-02T06:00:00Z", "closed_won"))
    counts: Any = {}

    add_counts(counts, deal_counts(one, conversions_of(one, rules), Surroundings(), rules))

    tables = tables_in(counts)
    assert happened(tables, "entered", Period("2026-01-01", "2026-01-01")) == {("default", "demo"): (1,)}
    assert durations(happened(tables, "cycles")) == {1: 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("2026-01-01T10:00:00Z", "new"), ("2026-01-01T10:05:00Z", "demo")),
        (("2026-01-01T10:00:00.000001Z", "new"), ("2026-01-01T10:00:00.000002Z", "demo")),
        (("2026-01-01T10:00:00Z", "new"), ("2026-01-01T10:00:00Z", "demo")),
    ],
)
def test_stages_are_in_the_order_of_the_first_facts_naming_them(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    against = [deal(f"{n}", "2026-01-02", ("2026-01-02", "demo"), ("2026-01-03", "new")) for n in range(3)]
    one, other = deal("a", first[0], first), deal("b", second[0], second)

    for deals in ([one, other, *against], [*against, other, one]):
        tables = tables_of(deals)
        assert stage_orders(tables, RULES.settings) == {"default": ["new", "demo"]}
        assert naming_tables({"named": tables["named"]}) == ["named:2026-01"]
        assert naming_tables({name: tables[name] for name in ("named", "named:2026-01")}) == [
            'named:2026-01-01:["default","demo"]',
            'named:2026-01-01:["default","new"]',
        ]


def test_stages_with_a_place_in_the_settings_need_no_facts_to_be_told_apart() -> None:
    rules = rules_from(Settings(pipelines={"default": Pipeline(stages=("demo", "new"))}))
    counts: Any = {}

    for each in (deal("a", "2026-01-01", ("2026-01-01", "new")), deal("b", "2026-01-01", ("2026-01-01", "demo"))):
        add_counts(counts, deal_counts(each, (), NOTHING, rules))

    assert not any(table.startswith("named:2026-01-01") for table in tables_in(counts))
    assert stage_orders(tables_in(counts), rules.settings) == {"default": ["demo", "new"]}


def test_a_period_has_the_numbers_of_its_days_alone() -> None:
    tables = tables_of([deal("d", "2026-01-31", ("2026-01-31", "new"), ("2026-02-01", "new2"), ("2026-03-05", "won"))])

    assert happened(tables, "entered", Period("2026-02-01", "2026-02-28")) == {("default", "new2"): (1,)}
    assert happened(tables, "entered") == {("default", "new"): (1,), ("default", "new2"): (1,)}
    assert set(tables["months"]) == {"2026-01", "2026-02", "2026-03"}
    assert tables_needed("left", Period("2026-01-31", ""), tables["months"]) == ["left:2026-01", "left:2026"]
    assert tables_needed("left", ALL_TIME, tables["months"]) == ["left"]


def test_medians_and_percentiles_are_of_nearest_rank() -> None:
    assert nearest_rank({4: 1, 10: 1}, 5) == 4
    assert nearest_rank({4: 2, 10: 1}, 5) == 4
    assert nearest_rank({day: 1 for day in range(1, 12)}, 9) == 10


def test_a_deal_adds_its_exit_closing_and_win_once() -> None:
    lead = at("2025-12-20")
    one = deal("d", "2026-01-01", ("2026-01-01", "demo"), ("2026-01-20", "won"), amount=500, owner="Jo")

    tables = tables_of([one], Surroundings(lead, "event"))

    assert {tuple(values_in(field)): number for field, number in tables["exits"].items()} == {
        ("default", "demo", 2, "won", ""): (1,)
    }
    assert happened(tables, "closed") == {("default", "Jo"): (1, 0, 1, 500, 19)}
    assert durations({key: n for key, n in happened(tables, "win_days").items() if key[0] == "lead"}) == {31: 1}
    assert tables["quality"] == {'["first_channel","event"]': (1, 0)}
    assert tables["pot"] == {"[]": (500,)}
    assert "open" not in tables


def test_an_open_deal_is_counted_by_stage_and_day_of_entry() -> None:
    one = deal("d", "2026-01-01", ("2026-01-01", "new"), ("2026-01-09", "demo"), amount=10**14, owner="Jo")

    tables = tables_of([one])

    assert list(tables["open"]) == ['["default","demo","2026-01-09",null]']
    assert Open(*tables["open"]['["default","demo","2026-01-09",null]']).squares == 10**28
    assert set(tables["open_ages"]) == {'["stage","demo","2026-01-01"]', '["owner","Jo","2026-01-01"]'}


def test_a_deleted_deal_leaves_nothing_but_the_names_of_its_stages() -> None:
    one = deal("d", "2026-01-01", ("2026-01-01", "new"), deleted=True)

    assert set(tables_of([one])) == {
        "named",
        "named:2026-01",
        'named:2026-01-01:["default","new"]',
    }


def test_squares_of_the_largest_amounts_fit_their_digits() -> None:
    digits = square_digits(10**15)

    assert sum(digit << (36 * place) for place, digit in enumerate(digits)) == 10**30
    assert max(digits) < 2**36


def test_a_duration_is_never_below_zero() -> None:
    one = deal("d", "2026-02-01", ("2026-01-01", "demo"), ("2026-01-20", "won"))

    assert durations(happened(tables_of([one]), "cycles")) == {0: 1}
    assert at("2026-01-02") - at("2026-01-01") == DAY
