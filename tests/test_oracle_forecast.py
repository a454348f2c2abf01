"""Hand-calculated examples for the independent calculation of pipeline and forecast (rules.md section 8)."""

import csv
import gzip
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from tests.conftest import shared_data
from tests.oracle import DAY, instant
from tests.oracle_forecast import Deal, Market, day_before_months, median, month_of, p90

T = date(2026, 3, 31)


def at(day, hour="12:00"):
    return instant(f"2026-{day}T{hour}:00Z", "t")


def deal(*steps, id="d", **fields):
    """Steps are (day, stage); the first change carries the fields."""
    changes = [(at(day), {"stage": stage}) for day, stage in steps]
    changes[0][1].update(fields)
    return Deal(id, changes)


def market(*deals, **fields):
    return Market(fields.pop("t", T), deals, **fields)


def stays(*deals, **fields):
    def plain(exit):
        return ("moved", exit[1][1]) if isinstance(exit, tuple) else exit

    return [(each.stage[1], each.begin, each.end, plain(each.exit)) for each in market(*deals, **fields).stays]


def default(by_stage):
    assert {pipeline for pipeline, _ in by_stage} == {"default"}
    return {stage: row for (_, stage), row in by_stage.items()}


# --- stays


def test_a_stay_lasts_from_the_fact_that_brought_it_to_the_next():
    found = stays(
        deal(("01-01", "new"), ("01-05", "demo"), ("01-09", "new"), ("01-10", "new"), ("01-20", "closed_won"))
    )

    assert found == [
        ("new", at("01-01"), at("01-05"), ("moved", "demo")),
        ("demo", at("01-05"), at("01-09"), ("moved", "new")),
        ("new", at("01-09"), at("01-20"), "won"),
    ]


def test_before_the_first_stage_a_deal_stays_nowhere_from_its_creation():
    late = deal(("01-05", "new"), createdAt=at("01-02"))

    assert stays(late) == [("(none)", at("01-02"), at("01-05"), ("moved", "new")), ("new", at("01-05"), None, None)]
    assert stays(deal(("01-05", "new"), createdAt=at("01-09"))) == [("new", at("01-05"), None, None)]
    assert stays(Deal("d", [(at("01-01"), {"amount": 1})])) == [("(none)", at("01-01"), None, None)]
    cleared = deal(("01-01", "new"), ("01-04", None))
    assert stays(cleared)[-1] == ("(none)", at("01-04"), None, None)


def test_a_close_that_was_reopened_is_a_move_to_the_reopened_stage():
    found = stays(deal(("01-01", "new"), ("01-05", "closed_lost"), ("01-20", "demo"), ("01-25", "closed_won")))

    assert found == [("new", at("01-01"), at("01-05"), ("moved", "demo")), ("demo", at("01-20"), at("01-25"), "won")]
    before = stays(deal(("01-01", "new"), ("01-05", "closed_lost"), ("01-20", "demo")), t=date(2026, 1, 19))
    assert before == [("new", at("01-01"), at("01-05"), "lost")]


def test_a_report_sees_what_is_stamped_before_the_end_of_its_day():
    one = deal(("01-01", "new"), ("01-05", "closed_won"), amount=5)

    assert [market(one, t=date(2026, 1, day)).rates()["won"] for day in (4, 5)] == [0, 1]
    assert market(one, t=date(2025, 12, 31)).deals == []
    assert market(deal(("01-01", "new"), ("01-02", "x"), deleted=True)).deals == []


def test_durations_are_days_between_dates_in_the_reporting_zone():
    late = Deal("d", [(at("01-01", "23:30"), {"stage": "new"}), (at("01-02", "22:30"), {"stage": "closed_won"})])

    assert market(late).rates()["median_cycle"] == 1
    assert market(late, zone="Europe/Berlin").rates()["median_cycle"] == 0
    early = deal(("01-05", "closed_won"), createdAt=at("01-09"))
    assert market(early).rates()["median_cycle"] == 0


def test_entered_left_and_time_in_stage():
    one, two = deal(("01-01", "new"), ("01-11", "demo")), deal(("01-20", "new"), ("02-03", "closed_lost"))

    assert default(market(one, two).moves()) == {
        "new": {"entered": 2, "left": 2, "days": [10, 14]},
        "demo": {"entered": 1, "left": 0, "days": []},
    }
    assert default(market(one, two).moves((date(2026, 1, 11), date(2026, 1, 31)))) == {
        "new": {"entered": 1, "left": 1, "days": [10]},
        "demo": {"entered": 1, "left": 0, "days": []},
    }


def test_medians_are_values_that_were_there():
    assert [median(values) for values in ([7], [1, 9], [3, 1, 2], [4, 3, 2, 1])] == [7, 1, 2, 2]
    assert [p90(range(1, n + 1)) for n in (1, 9, 10, 11)] == [1, 9, 9, 10]


def test_win_rate_size_cycle_and_velocity():
    deals = [
        deal(("01-01", "new"), ("01-11", "closed_won"), amount=300),
        deal(("01-01", "new"), ("01-21", "closed_won")),
        deal(("01-01", "new"), ("02-10", "closed_lost"), amount=9),
        deal(("03-01", "new"), amount=7),
        deal(("03-01", "new")),
    ]
    found = market(*deals).rates()

    assert (found["win_rate"], found["average_size"]) == (Fraction(2, 3), 150)
    assert (found["median_cycle"], found["mean_cycle"]) == (10, 15)
    assert found["velocity"] == Fraction(2 * 2 * 150, 3 * 15)
    january = market(*deals).rates((date(2026, 1, 1), date(2026, 1, 31)))
    assert january["win_rate"] == 1
    assert market(deal(("01-01", "closed_won"))).rates()["velocity"] is None


def test_stage_conversion_counts_deals_that_came_further():
    deals = [
        deal(("01-01", "new"), ("01-05", "demo"), ("01-06", "quote")),
        deal(("01-02", "new"), ("01-07", "closed_lost")),
        deal(("01-02", "demo"), ("01-07", "new")),
        deal(("02-02", "quote"), ("02-07", "closed_won")),
    ]

    assert market(*deals).order_of("default") == ["new", "demo", "quote"]
    assert default(market(*deals).stage_conversion()) == {"new": (3, 1), "demo": (2, 1), "quote": (2, 1)}
    assert default(market(*deals, order=("demo", "new", "quote")).stage_conversion())["new"] == (3, 1)
    assert default(market(*deals, order=("demo", "new", "quote")).stage_conversion())["demo"] == (2, 2)
    assert default(market(*deals).stage_conversion((date(2026, 1, 6), date(2026, 3, 1)))) == {
        "new": (1, 0),
        "demo": (0, 0),
        "quote": (2, 1),
    }


def test_open_amounts_by_stage():
    one, two = deal(("03-01", "new"), amount=5), deal(("03-11", "new"))

    assert default(market(one, two).open_by_stage()) == {"new": {"count": 2, "amount": 5, "oldest": 30}}


# --- the probability counter


def close_in(weeks, how, id="d", **fields):
    begin = date(2025, 1, 1)
    changes = [
        (instant(begin.isoformat(), "t"), {"stage": "new", "amount": 100, **fields}),
        (instant((begin + timedelta(days=7 * weeks)).isoformat(), "t"), {"stage": how}),
    ]
    return Deal(id, changes)


def test_hazards_by_hand():
    deals = [close_in(0, "closed_won")] * 10 + [close_in(1, "closed_won")] * 5 + [close_in(1, "closed_lost")] * 5
    found = market(*deals)

    # at risk 20 and 10, won 15 in all: h(-1) = 15/30, h(0) = (10 + 5)/30, h(1) = (5 + 5)/20
    assert not found.fallback("default")
    assert [found.hazards["won", ("default", "new"), week] for week in (0, 1)] == [Decimal("0.5"), Decimal("0.5")]
    # lost 5: 5/30, (0 + 10/6)/30, (5 + 10/18)/20
    lost = [round(found.hazards["lost", ("default", "new"), week], 12) for week in (0, 1)]
    assert lost == [round(Decimal(1) / 18, 12), round(Decimal(5) / 18, 12)]
    # W(new,0,1) = 1/2; W(new,0,2) = 1/2 + (1 - 1/2 - 1/18) x 1/2
    first, second = (round(found.winning[r][("default", "new"), 0], 12) for r in (1, 2))
    assert (first, second) == (Decimal("0.5"), round(Decimal(1) / 2 + Decimal(8) / 36, 12))


def test_open_deals_are_at_risk_in_the_weeks_before_theirs():
    still = Deal("o", [(instant("2026-03-10", "t"), {"stage": "new"})])  # 21 days: three weeks

    at_risk, exits = market(still).counted

    assert (
        dict(at_risk) == {(("default", "new"), 0): 1, (("default", "new"), 1): 1, (("default", "new"), 2): 1}
        and not exits
    )


def test_a_move_passes_the_chance_of_the_next_stage_on():
    def straight(how):
        hours = [("12:00", "a"), ("13:00", "b"), ("14:00", how)]
        return Deal("d", [(at("01-01", hour), {"stage": stage}) for hour, stage in hours])

    through = [straight(how) for how in ["closed_won"] * 15 + ["closed_lost"] * 5]
    found = market(*through)

    assert found.winning[1][("default", "a"), 0] == 0
    assert found.winning[2][("default", "a"), 0] == found.winning[52][("default", "b"), 0] == Decimal("0.75")


def test_operators_probabilities_below_twenty_closed_deals():
    sure = deal(("03-01", "demo"), amount=100, expectedClose=at("04-08"))
    loose = deal(("02-01", "new"), amount=100)
    found = market(sure, loose)

    assert found.fallback("default") and found.order_of("default") == ["new", "demo"]
    assert [found.chances(sure)[week] for week in (0, 1, 2)] == [0, 0, Decimal(2) / 3]
    assert found.chances(loose)[52] == Decimal(1) / 3
    assert abs(found.chances(loose)[1] - Decimal(1) / 39) < Decimal("1e-40")
    given = market(sure, loose, probabilities={"demo": "0.9"})
    assert given.weighted() == 90 + Decimal(100) / 3
    # in April: week 2 is 8-14 April, wholly; loose 1/39 a week for 30 days
    april = given.forecast(date(2026, 4, 1), date(2026, 4, 30), 1)
    assert abs(april["pipeline"] - (90 + Decimal(100) / 39 * 30 / 7)) < Decimal("1e-40")
    past = deal(("03-01", "demo"), amount=100, expectedClose=at("03-31"))
    assert market(past).chances(past)[13] == Decimal("0.5") > market(past).chances(past)[12]


def test_new_business_and_range_by_hand():
    steps = [(at("01-01"), {"stage": "new", "amount": 100}), (at("01-11"), {"stage": "closed_won"})]
    wins = [Deal(f"w{n}", steps, at("01-01")) for n in range(20)]
    leads = [at("01-01")] * 40 + [at("03-31")] * 5
    found = market(*wins, leads=leads)
    run = found.run_rate

    # ten days from lead to win; 45 leads in 90 days (2026-01-01 is the first); 40 in the year up to 21 March
    assert (run["basis"], run["m"], run["rate"], run["c"], run["z"]) == (
        "leads",
        10,
        Fraction(1, 2),
        Fraction(1, 2),
        100,
    )
    april = found.forecast(date(2026, 4, 1), date(2026, 4, 30), 1)
    assert april["new_business"] == 20 * 25  # from 11 April on: 20 days of 25
    assert market(*wins[:19], leads=leads).run_rate["basis"] == "opportunities"
    # one month of wins is too few for v; 5 wins of 100: sigma^2 = 50,000, s^2 = ln(1.2)
    s2 = Decimal("1.2").ln()
    assert abs(april["p50"] - (Decimal(500).ln() - s2 / 2).exp()) < Decimal("1e-40")
    assert abs(april["p90"] / april["p50"] - (Decimal("1.2815515655446004") * s2.sqrt()).exp()) < Decimal("1e-40")


def test_an_open_deal_without_amount_counts_with_the_average_size():
    wins = [deal(("01-01", "new"), ("01-11", "closed_won"), amount=100)] * 20
    open_deal = deal(("03-31", "new"))

    assert market(*wins, open_deal).amount(open_deal) == 100
    assert default(market(*wins, open_deal).open_by_stage())["new"]["amount"] == 0


def test_the_pot_has_refunds_and_ends_with_the_day():
    won = Deal(
        "w", [(at("03-01"), {"stage": "closed_won", "amount": 500})], None, [(at("03-20"), 50), (at("04-02"), 7)]
    )

    quarter = market(won).forecast(date(2026, 1, 1), date(2026, 3, 31), 3)

    assert quarter["pot"] == quarter["p10"] == quarter["p90"] == 450


def test_lead_quality_by_hand():
    good = [close_in(1, "closed_won", owner="g")] * 15 + [close_in(1, "closed_lost", owner="g")] * 5
    poor = [close_in(1, "closed_won", owner="p")] * 5 + [close_in(1, "closed_lost", owner="p")] * 15
    few = [close_in(1, "closed_won", owner="f")] * 10 + [close_in(1, "closed_lost", owner="f")] * 9
    found = market(*good, *poor, quality=lambda each: each.now("owner"))

    # r = 1/2: (15 + 10)/40 x 2 and (5 + 10)/40 x 2
    assert [found.lead_quality(deals[0]) for deals in (good, poor)] == [Decimal("1.25"), Decimal("0.75")]
    assert market(*good, *poor, *few, quality=lambda each: each.now("owner")).lead_quality(few[0]) == 1


# --- real data


@pytest.mark.slow
def test_the_back_test_that_the_rules_give():
    def when(day):
        return instant(day, "t")

    deals = []
    with gzip.open(shared_data("crm_sales_opportunities") / "sales_pipeline.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["engage_date"]:
                changes = [(when(row["engage_date"]), {"stage": "Engaging"})]
                if row["close_date"]:
                    amount = int(float(row["close_value"]) * 100)
                    changes.append((when(row["close_date"]), {"stage": row["deal_stage"], "amount": amount}))
                deals.append(Deal(row["opportunity_id"], changes))

    off = total = inside = last_month = open_times_rate = 0
    for number in range(5, 13):
        begin, end = month_of(date(2017, number, 1))
        then = Market(day_before_months(begin, 1), deals, won=("Won",), lost=("Lost",))
        came = Market(end, deals, won=("Won",), lost=("Lost",)).won_amount(begin, end)
        told = then.forecast(begin, end, 1)
        off += abs(told["pot"] + told["pipeline"] + told["new_business"] - came)
        total += came
        inside += told["p10"] <= came <= told["p90"]
        last_month += abs(then.won_amount(*month_of(then.t)) - came)
        open_times_rate += abs(sum(map(then.amount, then.of("open"))) * then.rates()["win_rate"] - came)

    assert [round(float(wrong / total), 3) for wrong in (off, last_month, open_times_rate)] == [0.253, 0.331, 2.019]
    assert inside == 5


def test_a_back_test_begins_before_the_months_ahead():
    assert day_before_months(date(2017, 5, 1), 1) == date(2017, 4, 30)
    assert day_before_months(date(2017, 5, 1), 3) == date(2017, 2, 28)
    assert DAY == 86_400_000_000
