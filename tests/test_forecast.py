"""The probability counter and the forecast: by hand, against the independent calculation, and on real data.

TOUCHLINE_EXAMPLES is how many markets are compared (default 24).
"""

import os
import random
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.backtest import came_in, day_of_trial, months_to_try, summary, trial
from models.counts import Tables, add_counts, tables_in
from models.deals import Booking, Deal, conversions_of
from models.filters import NO_LABELS, label_of
from models.flows import Period
from models.forecast import Forecast, first_tables, half_up, more_tables, span_of, spans_from
from models.funnel import stage_flows, velocities
from models.hazards import Counter, Observed, observed
from models.pipeline import Surroundings, deal_counts, lead_counts
from models.recompute import RawFact, recompute
from models.rules import Rules
from models.settings import Pipeline, Settings
from models.stages import naming_tables
from models.times import DAY, HOUR, MINUTE, day_of, end_of, parse_instant
from streams.reference import rules_from
from tests import oracle_forecast
from tests.conftest import shared_data

EXAMPLES = int(os.environ.get("TOUCHLINE_EXAMPLES", "24"))
RULES = rules_from(Settings(time_zone="Europe/Berlin"))
BEGIN = parse_instant("2025-01-01T08:00:00Z", "test")
SAME = Decimal("1e-25")


def tables_of(deals: Iterable[tuple[Deal, Surroundings]], leads: Iterable[int] = (), rules: Rules = RULES) -> Tables:
    """All tables of counts of these deals and leads."""
    counts: Any = {}
    for deal, around in deals:
        add_counts(counts, deal_counts(deal, conversions_of(deal, rules), around, rules))
    for at in leads:
        add_counts(counts, lead_counts(at, rules))
    return tables_in(counts)


def forecast_at(day: str, tables: Tables, grain: str = "month", rules: Rules = RULES) -> Forecast:
    """The forecast from those tables alone that it says it needs."""
    names = first_tables(day, grain, tables.get("months", {}))
    needed = {name: tables.get(name, {}) for name in names}
    needed |= {name: tables.get(name, {}) for name in more_tables(needed, day)}
    while names := naming_tables(needed):
        needed |= {name: tables.get(name, {}) for name in names}
    return Forecast(needed, day, rules)


# --- by hand ----------------------------------------------------------------------------

NEW = ("default", "new")


def closed(stays: dict[int, dict[tuple[str, str], int]], lasting: dict[int, int] | None = None) -> Counter:
    return Counter({NEW: Observed(stays, lasting or {})})


def test_a_hazard_is_drawn_towards_that_of_the_week_before() -> None:
    counter = closed({0: {("won", ""): 10}, 1: {("won", ""): 5, ("lost", ""): 5}})

    weeks = counter.weeks[NEW]

    assert [week.at_risk for week in weeks] == [20, 10]
    assert [week.hazards["won", ""] for week in weeks] == [Decimal("0.5"), Decimal("0.5")]
    assert [half_up(week.hazards["lost", ""] * 360) for week in weeks] == [20, 100]  # 1/18 and 5/18
    assert half_up(counter.within(NEW, 0)[2] * 36) == 26  # 1/2 + 4/9 · 1/2


def test_a_stay_that_lasts_is_at_risk_in_the_weeks_it_has_behind_it() -> None:
    assert [week.at_risk for week in closed({}, {3: 1, 0: 5}).weeks[NEW]] == [1, 1, 1]


def test_a_deal_of_ninety_days_has_less_chance_than_a_young_one() -> None:
    """Winners needed up to five weeks; who is older has been losing chance since."""
    won = {week: {("won", ""): 8, ("lost", ""): 2} for week in range(5)}
    lost = {week: {("lost", ""): 4} for week in range(5, 20)}
    counter = closed({**won, **lost})

    chances = [counter.chance(NEW, week) for week in range(20)]

    assert chances[13] < chances[5] < chances[0]
    assert all(later < earlier for earlier, later in zip(chances[3:], chances[4:], strict=False))
    assert chances[90 // 7] < chances[0] / 10


def test_an_unknown_stage_has_no_chance() -> None:
    assert closed({}).chance(NEW, 3) == 0


def test_halves_are_rounded_up_once() -> None:
    assert [half_up(Decimal(text)) for text in ("0.5", "1.4999", "-0.5", "2." + "4" * 3, "3." + "49" + "9" * 30)] == [
        1, 1, -1, 2, 4,
    ]  # fmt: skip


def test_spans_are_months_quarters_and_years() -> None:
    assert [span.name for span in spans_from("2026-11-24", "month", 3)] == ["2026-11", "2026-12", "2027-01"]
    assert [span.name for span in spans_from("2026-11-24", "quarter", 2)] == ["2026-Q4", "2027-Q1"]
    assert span_of("2026-11-24", "year").period == Period("2026-01-01", "2026-12-31")
    assert span_of("2026-02-24", "month").period == Period("2026-02-01", "2026-02-28")


def test_with_few_closed_deals_the_operators_probabilities_hold() -> None:
    rules = rules_from(Settings(pipelines={"default": Pipeline(stages=("new", "demo"), probabilities={"demo": 0.9})}))
    march = parse_instant("2026-03-01", "test")
    sure = Deal(
        "a",
        march,
        stages=((march, "demo"),),
        amount=10000,
        currency="USD",
        expected_close="2026-04-08",
        named_by=("1",),
    )
    loose = Deal("b", march, stages=((march, "new"),), amount=10000, currency="USD", named_by=("2",))

    found = forecast_at("2026-03-31", tables_of([(each, Surroundings()) for each in (sure, loose)]), rules=rules)

    assert found.fixed == ["default"]
    april = found.outlooks("month", 2)[1]
    assert half_up(april.pipeline) == half_up(Decimal(9000) + Decimal(10000) / 39 * 30 / 7)
    assert half_up(found.weighted) == half_up(9000 + Decimal(10000) / 3)


def test_leads_of_which_an_attribute_is_not_known_are_a_kind_of_their_own() -> None:
    rules = rules_from(Settings(lead_quality="industry"))
    march, steel = parse_instant("2026-03-01", "test"), Surroundings(labels=frozenset({"industry=steel"}))

    def ended(number: int, stage: str) -> Deal:
        return Deal(f"d{number}", march, stages=((march, stage),), amount=100, currency="USD", named_by=("1",))

    deals = [(ended(number, "closed_won" if number < 15 else "closed_lost"), Surroundings()) for number in range(20)]
    deals += [(ended(number, "closed_lost"), steel) for number in range(20, 30)]

    found = forecast_at("2026-03-31", tables_of(deals, rules=rules), rules=rules)

    assert found.kinds_of_leads["industry", "(none)"] == (15, 5)
    assert found.kinds_of_leads["industry", "steel"] == (0, 10)
    assert found.quality("(none)") == Decimal("1.25")  # ((15 + 20/2) / (20 + 20)) / (1/2)
    assert found.quality("steel") == 1


def test_a_pipeline_without_open_deals_is_told_by_hand_too() -> None:
    rules = rules_from(Settings(pipelines={"default": Pipeline(probabilities={"new": 0.4})}))
    march = parse_instant("2026-03-01", "test")
    won = Deal(
        "a", march, stages=((march, "new"), (march + DAY, "closed_won")), amount=1, currency="USD", named_by=("1", "2")
    )

    found = forecast_at("2026-03-31", tables_of([(won, Surroundings())]), rules=rules)

    assert found.fixed == ["default"]
    assert found.chance_at(("default", "new"), 0) == Decimal("0.4")


# --- against the independent calculation ------------------------------------------------

STAGES = ("new", "demo", "quote")
INDUSTRY: dict[str | None, str] = {"event": "steel"}
"""In these markets whom an event brought is in steel; of the others nobody knows."""


def market(
    rng: random.Random, size: int, end: int
) -> tuple[list[tuple[Deal, Surroundings]], list[oracle_forecast.Deal], list[int]]:
    """Deals over some 14 months, as the product and as the other calculation know them."""
    ours, theirs, leads = [], [], []
    for number in range(size):
        at = BEGIN + rng.randrange(420) * DAY + rng.randrange(9) * HOUR + number * MINUTE
        lead = at - rng.randrange(60) * DAY if rng.random() < 0.6 else None
        steps = [(moment, stage) for moment, stage in steps_of(rng, at) if moment < end]
        created = at + rng.choice((0, 0, -3, 2)) * DAY
        amount = rng.choice((None, rng.randrange(1, 10**7)))
        refunds = [(steps[-1][0] + DAY, 99)] if steps[-1][1] == "closed_won" and rng.random() < 0.2 else []
        expected = rng.choice((None, at + rng.randrange(200) * DAY))
        channel = rng.choice(("event", "email", None))
        labels = frozenset({label_of("industry", INDUSTRY[channel])}) if channel in INDUSTRY else NO_LABELS
        ours.append((our_deal(number, created, steps, amount, expected, refunds), Surroundings(lead, channel, labels)))
        said: dict[str, Any] = {"createdAt": created, "amount": amount, "expectedClose": expected}
        changes = [(at, {**said, "stage": steps[0][1]}), *((at, {"stage": stage}) for at, stage in steps[1:])]
        theirs.append(oracle_forecast.Deal(f"d{number}", changes, lead, refunds, channel))
        leads += [] if lead is None else [lead, lead + DAY]
    return ours, theirs, leads


def steps_of(rng: random.Random, at: int) -> list[tuple[int, str]]:
    """A way through the stages; some are closed, and some of these opened again."""
    steps = [(at, rng.choice(STAGES))]
    while rng.random() < 0.8:
        at += rng.randrange(60) * DAY + rng.randrange(20) * HOUR
        stage = rng.choice((*STAGES, "closed_won", "closed_won", "closed_lost"))
        if stage != steps[-1][1]:
            steps.append((at, stage))
    return steps


def our_deal(
    number: int, created: int, steps: list[tuple[int, str]], amount: int | None, expected: int | None, refunds: Any
) -> Deal:
    day = None if expected is None else day_of(expected, RULES.settings.time_zone)
    bookings = tuple(Booking(at, "r", cents, "USD") for at, cents in refunds)
    stages = tuple(steps)
    ids = tuple(f"d{number}-{step}" for step in range(len(steps)))
    return Deal(
        f"d{number}", created, None, (), None, None, None, stages, amount, "USD", day, False, bookings, named_by=ids
    )


@pytest.mark.parametrize("quality", ["none", "first_channel", "industry"])
def test_the_forecast_of_counts_is_that_of_all_deals_one_by_one(quality: str) -> None:
    rules = rules_from(Settings(time_zone="Europe/Berlin", lead_quality=quality))
    for seed in range(EXAMPLES // 2):
        day = date(2026, 4, 1) + timedelta(days=seed)
        ours, theirs, leads = market(random.Random(seed), 3 + seed * 3, end_of(day.isoformat(), "Europe/Berlin"))
        kinds: dict[str, Any] = {
            "first_channel": lambda deal: deal.first_channel or "(none)",
            "industry": lambda deal: INDUSTRY.get(deal.first_channel),
        }
        other = oracle_forecast.Market(day, theirs, leads, "Europe/Berlin", quality=kinds.get(quality))
        grain = ("month", "quarter", "year")[seed % 3]
        tables = tables_of(ours, leads, rules)

        found = forecast_at(day.isoformat(), tables, grain, rules)

        assert bool(found.fixed) == other.fallback("default"), seed
        for outlook in found.outlooks(grain, 3):
            begin, end = (date.fromordinal(each) for each in outlook.span[1:])
            told = other.forecast(begin, end, {"month": 1, "quarter": 3, "year": 12}[grain])
            if found.variation == other.unsteadiness:
                for name in ("pot", "pipeline", "new_business", "p10", "p50", "p90"):
                    assert abs(getattr(outlook, name) - told[name]) <= SAME * (1 + abs(told[name])), (seed, name)
        assert abs(found.weighted - other.weighted()) <= SAME * (1 + found.weighted), seed
        assert_same_rates(tables, other, rules, seed)


def assert_same_rates(tables: Tables, other: oracle_forecast.Market, rules: Rules, seed: int) -> None:
    """Hazards, velocity and the flow through the stages."""
    at_risk, _ = other.counted
    ours = Counter(observed(tables, other.t.isoformat()))
    assert {
        (stage, number): week.at_risk for stage, weeks in ours.weeks.items() for number, week in enumerate(weeks)
    } == dict(at_risk), seed
    (rates,), told = velocities(tables, "total", Period()), other.rates()
    assert (rates.won, rates.lost, rates.win_rate, rates.average_size) == (
        told["won"], told["lost"], told["win_rate"], told["average_size"],
    ), seed  # fmt: skip
    assert (rates.cycle_median, rates.cycle_mean, rates.per_day) == (
        told["median_cycle"], told["mean_cycle"], told["velocity"],
    ), seed  # fmt: skip
    period = (date(2025, 3, 1), date(2025, 9, 17))
    moves, converted = other.moves(period), other.stage_conversion(period)
    for flow in stage_flows(tables, Period(*map(date.isoformat, period)), rules):
        stage = (flow.pipeline, flow.stage)
        row = moves.get(stage, {"entered": 0, "left": 0, "days": []})
        assert (flow.entered, flow.left) == (row["entered"], row["left"]), (seed, stage)
        if row["days"]:
            assert flow.median_days == oracle_forecast.median(row["days"]), seed
            assert flow.p90_days == oracle_forecast.p90(row["days"]), seed
        if stage in converted:
            assert (flow.deals, flow.converted) == converted[stage], (seed, stage)


def test_the_variation_is_that_of_months_from_the_first_win_on() -> None:
    def win(day: str, amount: int) -> tuple[Deal, Surroundings]:
        at = parse_instant(day, "test")
        return Deal(
            day, at, stages=((at, "closed_won"),), amount=amount, currency="USD", named_by=(day,)
        ), Surroundings()

    three = [win("2026-01-10", 100), win("2026-03-10", 200), win("2026-04-10", 999)]

    assert forecast_at("2026-04-20", tables_of(three)).variation == Decimal(2) / 3  # of 100, 0, 200
    assert forecast_at("2026-03-20", tables_of(three[:2])).variation == 0


# --- on real data -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_back_test_on_real_deals_beats_both_naive_forecasts() -> None:
    from tests.test_real_data import CRM, mapped_facts

    settings = Settings()
    rules = rules_from(settings)
    facts = mapped_facts(shared_data("crm_sales_opportunities"), CRM)
    known = tables_in(recompute((RawFact(*fact) for fact in facts), rules).counts)
    trials = []
    for month in months_to_try(known, "2018-06-30", 1):
        day = day_of_trial(month, 1)
        then = recompute((RawFact(*fact) for fact in facts), rules, end_of(day, "UTC"))
        trials.append(trial(forecast_at(day, tables_in(then.counts), rules=rules), month, 1, came_in(known, month)))

    told = summary(trials)

    assert [each.month for each in trials] == [f"2017-{number:02}" for number in range(5, 13)]
    assert [round(float(value or 0), 3) for value in told] == [0.253, 0.331, 2.019, 0.625]


@pytest.mark.slow
def test_the_real_deals_have_the_figures_that_their_file_has() -> None:
    from tests.test_real_data import CRM, mapped_facts

    rules = rules_from(Settings())
    facts = mapped_facts(shared_data("crm_sales_opportunities"), CRM)
    tables = tables_in(recompute((RawFact(*fact) for fact in facts), rules).counts)

    (total,) = velocities(tables, "total", Period())
    flows = {flow.stage: flow for flow in stage_flows(tables, Period(), rules)}
    quarters = [span.period for span in spans_from("2017-01-01", "quarter", 4)]

    assert (total.won, total.lost, total.open) == (4_238, 2_473, 2_089)
    assert round(float(total.win_rate or 0), 4) == 0.6315
    assert (flows["Engaging"].open, flows["Prospecting"].open) == (1_589, 500)
    assert [sum(won for won, *_ in _wins(tables, each)) for each in (Period(),)] == [4_238]
    amounts = [sum(amount for _, amount in _wins(tables, each)) // 100 for each in quarters]
    assert amounts == [1_134_672, 3_086_111, 2_982_255, 2_802_496]
    assert sum(amounts) == 10_005_534


def _wins(tables: Tables, period: Period) -> list[tuple[int, int]]:
    from models.flows import happened
    from models.pipeline import WINS, Wins

    every = happened(tables, WINS, period).items()
    return [(Wins(*numbers).won, Wins(*numbers).amount) for (measure,), numbers in every if measure == "opportunity"]


@pytest.mark.slow
def test_half_of_the_real_leads_that_were_won_took_no_more_than_a_fortnight() -> None:
    from models.funnel import time_to_buy
    from tests.test_real_data import OLIST, mapped_facts

    facts = mapped_facts(shared_data("olist_funnel"), OLIST)
    tables = tables_in(recompute((RawFact(*fact) for fact in facts), rules_from(Settings())).counts)

    assert time_to_buy(tables, Period()).wins == 842
    assert time_to_buy(tables, Period()).median_days == 14
