"""Reports on the totals of a small story, as a worker made them on real Kafka and Redis."""

import asyncio
import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from models.attribution import PARTICIPATION
from models.catalogue import every_model, kept_models
from models.channels import Origin
from models.destinations import Webhook
from models.hits import Hit
from models.settings import Settings
from models.times import MINUTE
from streams import config, earned
from streams.journeys import visits_of
from streams.lane_metrics import lane_metrics
from streams.printing import money
from tests.running import STORY, Place, account, until
from tests.running import touch as recorded

RULES = """
conversion_stages = ["demo"]
[models.calls]
kinds = { call = 1, default = 0 }
"""


@pytest.fixture(scope="module")
def story(new_place: Callable[[int], Place]) -> Iterator[Place]:
    """The story, in the totals; its worker goes on running."""
    place = new_place(3)
    place.configure(RULES)
    place.produce(STORY)
    with place.worker():
        place.run("wait", "--timeout", "60")
        yield place


def test_credits_of_a_win_and_its_refund_add_up_in_every_model(story: Place) -> None:
    for model in {*every_model(Settings()), "calls"} - {PARTICIPATION}:
        rows = story.rows("report", "credits", "--model", model, "--by", "channel")

        assert sum(row["amount"] for row in rows) == 90_000
        assert sum(row["count"] for row in rows) == 1_000_000


def amounts(rows: list[dict[str, Any]], by: str) -> dict[str, int]:
    return {row[by]: row["amount"] for row in rows}


def test_every_touch_participates_in_the_whole(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "participation", "--by", "channel")
    teams = story.rows("report", "credits", "--model", "participation", "--by", "team")

    assert amounts(rows, "channel") == {"paid_search": 90_000, "sales_outbound": 90_000, "event": 90_000}
    assert amounts(teams, "team") == {"marketing": 90_000, "sales": 90_000}


def test_a_model_of_the_settings_earns_as_it_says(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "calls", "--by", "rep")
    listed = {row["name"]: row["words"] for row in story.rows("models")}

    assert amounts(rows, "rep") == {"Bo": 90_000}
    assert listed["calls"] == "kinds call 1, default 0"
    assert {"linear", "markov", "participation"} < listed.keys()


def test_the_books_balance_under_a_model_of_the_settings(story: Place) -> None:
    found = json.loads(story.run("audit", "--format", "json").stdout)

    assert found["clean"]
    assert found["width"] == 2 * (len(kept_models(Settings())) + 1)


def test_markov_shares_each_day_by_removal_effects_ties_to_the_smaller_channel(story: Place) -> None:
    asked = ("report", "credits", "--model", "markov", "--by", "channel", "--grain", "month")
    rows = [(row["period"], row["channel"], row["amount"]) for row in story.rows(*asked)]

    assert rows == [
        ("2026-04", "event", 33_334),
        ("2026-04", "paid_search", 33_333),
        ("2026-04", "sales_outbound", 33_333),
        ("2026-05", "paid_search", -3333),
        ("2026-05", "sales_outbound", -3333),
        ("2026-05", "event", -3334),
    ]


def test_markov_answers_by_channel_only_and_says_why(story: Place) -> None:
    refused = story.run("report", "credits", "--model", "markov", "--by", "team", code=2)

    assert "by: expected channel: markov tells what conversions are lost without a channel" in refused.stderr


def test_who_sourced_and_who_influenced(story: Place) -> None:
    rows = story.rows("report", "sourced")
    stages = story.rows("report", "sourced", "--by", "channel", "--conversion", "stage:demo")

    assert [(row["team"], row["sourced"]["amount"], row["influenced"]["amount"]) for row in rows] == [
        ("marketing", 90_000, 90_000),
        ("sales", 0, 90_000),
    ]
    assert {row["channel"]: row["sourced"]["amount"] for row in stages} == {
        "paid_search": 100_000,
        "sales_outbound": 0,
        "event": 0,
    }


def test_funnel_stages_are_told_by_channel(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "linear", "--by", "funnel-channel")

    assert amounts(rows, "funnel-channel") == {
        "awareness:paid_search": 30_000,
        "consideration:sales_outbound": 30_000,
        "consideration:event": 30_000,
    }


def test_credits_name_the_dimension_as_it_was_asked_for(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "linear", "--by", "landing-page")

    assert rows == [
        {"period": "total", "landing-page": None, "count": 666_666, "amount": 60_000, "currency": "USD"},
        {"period": "total", "landing-page": "/pricing", "count": 333_334, "amount": 30_000, "currency": "USD"},
    ]


@pytest.mark.parametrize("by", ["stage", "funnel-stage", "funnel_stage", "Touch-Kind", "kind"])
def test_a_dimension_has_several_names(story: Place, by: str) -> None:
    rows = story.rows("report", "credits", "--model", "linear", "--by", by)

    assert sum(row["amount"] for row in rows) == 90_000
    assert all(by in row for row in rows)


def test_a_refund_is_in_its_own_month_and_counts_no_conversion(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "first_touch", "--by", "source", "--grain", "month")

    assert [(row["period"], row["source"], row["count"], row["amount"]) for row in rows] == [
        ("2026-04", "google", 1_000_000, 100_000),
        ("2026-05", "google", 0, -10_000),
    ]


def test_from_and_to_are_days_and_included(story: Place) -> None:
    asked = ("report", "credits", "--model", "linear", "--by", "channel", "--grain", "day")

    days = {row["period"] for row in story.rows(*asked, "--from", "2026-04-20", "--to", "2026-05-02")}
    before = story.rows(*asked, "--to", "2026-04-19")

    assert days == {"2026-04-20", "2026-05-02"}
    assert before == []


def test_leads_and_opportunities_are_counted_too(story: Place) -> None:
    leads = story.rows("report", "credits", "--model", "linear", "--by", "kind", "--conversion", "lead")
    opportunities = story.rows("report", "credits", "--model", "linear", "--by", "team", "--conversion", "opportunity")

    assert sum(row["count"] for row in leads) == 2_000_000
    assert sum(row["count"] for row in opportunities) == 2_000_000
    assert sum(row["amount"] for row in opportunities) == 150_000
    assert {row["team"] for row in opportunities} == {"marketing", "sales", "unattributed"}


def test_rows_are_ordered_by_period_then_the_greatest_amount(story: Place) -> None:
    rows = story.rows("report", "credits", "--model", "time_decay", "--by", "channel", "--grain", "month")

    order = [(row["period"], -row["amount"], -row["count"]) for row in rows]
    assert order == sorted(order)


def test_models_stand_side_by_side(story: Place) -> None:
    rows = story.rows("report", "compare", "--models", "first_touch,last_touch", "--by", "channel")

    assert rows[0] == {
        "period": "total",
        "channel": "paid_search",
        "first_touch": {"count": 1_000_000, "amount": 90_000},
        "last_touch": {"count": 0, "amount": 0},
        "currency": "USD",
    }
    assert rows[1]["last_touch"] == {"count": 1_000_000, "amount": 90_000}


def test_csv_is_flat_with_numbers_as_they_are(story: Place) -> None:
    compared = story.run("report", "compare", "--models", "linear", "--by", "campaign", "--format", "csv").stdout
    empty = story.run(
        "report", "credits", "--model", "linear", "--by", "rep", "--to", "2020-01-01", "--format", "csv"
    ).stdout

    rows = list(csv.DictReader(io.StringIO(compared)))
    assert [(row["campaign"], row["linear.amount"]) for row in rows] == [("", "60000"), ("spring", "30000")]
    assert empty == "period,rep,count,amount,currency\n"


def test_tables_are_for_people(story: Place) -> None:
    table = story.run("report", "credits", "--model", "linear", "--by", "campaign").stdout

    assert table.splitlines()[1].split() == ["total", "(none)", "0.666667", "600.00", "USD"]


def test_a_deal_shows_its_touches_and_what_each_earned(story: Place) -> None:
    document = story.rows("report", "deal", "D1")

    assert document["deal"]["account"] == "acme.com"
    assert document["deal"]["state"] == "won"
    assert [each["kind"] for each in document["conversions"]] == ["opportunity", "stage:demo", "won", "refund"]
    won, back = document["conversions"][2:]
    assert [(touch["id"], touch["person"], touch["funnel_stage"]) for touch in won["touches"]] == [
        ("p1", "ann@acme.com", "awareness"),
        ("t1", "ann@acme.com", "consideration"),
        ("t2", "bob@acme.org", "consideration"),
    ]
    assert [touch["credits"]["linear"]["amount"] for touch in won["touches"]] == [33_334, 33_333, 33_333]
    assert [touch["credits"]["linear"]["amount"] for touch in back["touches"]] == [-3334, -3333, -3333]
    assert set(won["touches"][0]["credits"]) >= {"first_touch", "linear", "lead_creation"}
    assert won["touches"][0]["credits"]["markov"] == {"effect": 1.0}


def test_the_credits_of_deals_add_up_to_the_totals(story: Place) -> None:
    won = [each for each in story.rows("report", "deal", "D1")["conversions"] if each["kind"] in ("won", "refund")]
    by_channel: dict[str, int] = {}
    for each in won:
        for touch in each["touches"]:
            earned = touch["credits"].get("w_shaped", {"amount": 0})["amount"]
            by_channel[touch["channel"]] = by_channel.get(touch["channel"], 0) + earned

    rows = story.rows("report", "credits", "--model", "w_shaped", "--by", "channel")

    assert {row["channel"]: row["amount"] for row in rows} == by_channel


def test_a_deal_without_touches_is_unattributed(story: Place) -> None:
    document = story.rows("report", "deal", "D2")

    (opportunity,) = document["conversions"]
    assert opportunity["touches"] == []
    assert opportunity["unattributed"]["linear"] == {"count": 1_000_000, "amount": 50_000}


def test_a_deal_that_waits_for_a_rate_says_so(story: Place) -> None:
    document = story.rows("report", "deal", "D3")

    assert document["conversions"][0]["waits_for"] == "a rate from EUR to USD"
    assert "waits for a rate from EUR to USD" in story.run("report", "deal", "D3").stdout


def test_a_deal_on_the_terminal_shows_every_model(story: Place) -> None:
    printed = story.run("report", "deal", "D1").stdout

    assert "D1: Big, won, closed_won, 1,000.00 USD" in printed
    assert "paid_search / google" in printed
    assert "333.34" in printed


def test_a_journey_has_touches_pages_people_and_deals(story: Place) -> None:
    document = story.rows("report", "journey", "www.acme.com")

    assert document["account"] == "acme.com"
    assert document["merged_from"] is None
    assert [each["person"] for each in document["people"]] == ["ann@acme.com", "bob@acme.org"]
    assert [each["id"] for each in document["deals"]] == ["D1"]
    first, call, webinar = document["touches"]
    assert (first["kind"], first["pages"], first["seconds"]) == ("web_session", 2, 300.0)
    assert first["paths"] == ["/pricing", "/demo"]
    assert (call["rep"], webinar["person"]) == ("Bo", "bob@acme.org")


def test_an_account_that_belongs_to_another_answers_for_it(story: Place) -> None:
    document = story.rows("report", "journey", "acme.org")

    assert (document["account"], document["merged_from"]) == ("acme.com", "acme.org")
    assert len(document["touches"]) == 3
    assert "acme.org was merged into acme.com" in story.run("report", "journey", "acme.org").stdout


def test_the_pipeline_holds_open_deals_by_stage(story: Place) -> None:
    (row,) = story.rows("report", "pipeline")

    assert {name: row[name] for name in ("stage", "count", "amount", "currency")} == {
        "stage": "proposal", "count": 1, "amount": 50_000, "currency": "USD",
    }  # fmt: skip
    assert row["oldest_age_days"] == row["average_age_days"] > 0
    (mine,) = story.rows("report", "pipeline", "--by", "channel", "--model", "linear")
    assert (mine["channel"], mine["count"], mine["amount"]) == ("unattributed", 1_000_000, 50_000)


def test_the_reports_of_yesterday_are_a_batch_and_say_what_the_counts_say(story: Place) -> None:
    """Nothing happened since yesterday, so that both must say the same of what has happened."""
    yesterday = (date.today() - timedelta(days=1)).isoformat()

    for report in (
        ("velocity", "--by", "pipeline"),
        ("velocity", "--grain", "month"),
        ("funnel",),
        ("pipeline", "--by", "team"),
    ):
        now, then = (story.rows("report", *report, *day) for day in ((), ("--day", yesterday)))
        assert now, report
        if report[0] != "pipeline":
            assert now == then, report


def test_the_forecast_shows_each_part_apart(story: Place) -> None:
    first, *others = story.rows("report", "forecast")

    assert len(others) == 11
    assert abs(first["pipeline"] + first["new_business"] + first["pot"] - first["total"]) <= 1
    assert first["fixed_chances"] == ["default"]
    assert first["p10"] <= first["p50"] <= first["p90"]
    assert first["new_business_from"] == "opportunities"
    assert [row["period"][5:] for row in story.rows("report", "forecast", "--grain", "quarter")][0].startswith("Q")
    assert "new business from opportunities" in story.run("report", "forecast", "--by", "year").stdout
    assert {row["stage"] for row in story.rows("report", "forecast", "--chances")} >= {"demo"}
    assert story.rows("report", "forecast", "--lead-quality")[0]["factor"] is None
    assert story.rows("report", "forecast", "--backtest")["months"] == []


def test_the_funnel_tells_stages_time_to_buy_and_accounts(story: Place) -> None:
    document = story.rows("report", "funnel")

    assert [row["stage"] for row in document["stages"]][:1] in (["(none)"], ["demo"])
    assert document["time_to_buy"][0]["wins"] == 1
    assert {row["state"]: row["accounts"] for row in document["accounts"]}["customer"] == 1
    assert sum(row["amount"] for row in document["credits"]) == 90_000
    assert "median days" in story.run("report", "funnel").stdout


def test_what_waits_is_listed_with_its_reason(story: Place) -> None:
    rows = story.rows("report", "waiting")

    assert [(row["kind"], row["deal"], row["refund"]) for row in rows] == [
        ("opportunity", "D3", None),
        ("pipeline", "D3", None),
        ("refund", "D2", "r2"),
    ]
    assert "no rate from EUR to USD" in rows[0]["reason"]


def test_lanes_are_where_kafka_ends(story: Place) -> None:
    rows = until(lambda: story.rows("report", "lanes"), lambda rows: all(row["workers"] for row in rows))
    by_partition = story.rows("report", "lanes", "--partitions")

    assert [(row["lane"], row["facts"], row["lag"]) for row in rows] == [
        ("visitors", 3, 0),
        ("members", 8, 0),
        ("accounts", 1, 0),
    ]
    assert all(row["workers"] == ["test"] and row["outbox"] == 0 and row["messages_lag"] == 0 for row in rows)
    assert len(by_partition) == 9
    assert sum(row["facts"] for row in by_partition) == 12
    assert "topics" not in story.run("report", "lanes").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deal", "nothing"), "no deal nothing is known"),
        (("journey", "nobody.example"), "no account nobody.example is known"),
        (("journey", "ann@acme.com"), "the person ann@acme.com belongs to the account acme.com"),
    ],
)
def test_what_is_not_known_is_said_in_one_line(story: Place, arguments: tuple[str, ...], words: str) -> None:
    result = story.run("report", *arguments, code=3)

    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "magic", "--by", "channel"), "model: expected one of first_touch"),
        (("--model", "linear", "--by", "shoe"), "by: expected one of channel"),
        (("--model", "linear", "--by", "channel", "--from", "soon"), "from: expected a day"),
        (("--model", "linear", "--by", "channel", "--conversion", "x"), "conversion: expected one of lead"),
        (("--model", "linear", "--by", "channel", "--grain", "year"), "grain: expected one of total"),
    ],
)
def test_wrong_input_is_named(story: Place, arguments: tuple[str, ...], words: str) -> None:
    assert words in story.run("report", "credits", *arguments, code=2).stderr


def test_null_is_none_and_last_among_equals() -> None:
    sums: earned.Sums = {
        ("total", None): [1, 5],
        ("total", "b"): [1, 5],
        ("total", "a"): [2, 5],
        ("total", "c"): [0, 0],
    }

    assert [value for (_, value), _ in earned._sorted(sums)] == ["a", "b", None]


def test_each_touch_of_a_session_has_the_pages_seen_while_its_source_was_current() -> None:
    ad, news = Origin("google", "cpc", "", "", ""), Origin("news", "email", "", "", "")
    hits = [
        Hit(0, "a", ad, "/", None),
        Hit(MINUTE, "b", None, "/pricing", None),
        Hit(3 * MINUTE, "c", news, "/blog", None),
        Hit(4 * MINUTE, "d", ad, "/demo", None),
        Hit(6 * MINUTE, "e", None, "/", None),
    ]

    assert [tuple(visit) for visit in visits_of(hits)] == [
        ("a", ["/", "/pricing", "/demo", "/"], 300.0),
        ("c", ["/blog"], 60.0),
    ]


def test_money_has_the_decimals_of_its_currency() -> None:
    assert [money(123_456, "USD"), money(-5, "USD"), money(1234, "JPY"), money(1, "KWD")] == [
        "1,234.56",
        "-0.05",
        "1,234",
        "0.001",
    ]


def test_an_account_is_opened_up_with_its_people_deals_and_success(story: Place) -> None:
    found = story.rows("report", "account", "acme.org")

    assert (found["account"], found["asked"], found["domains"]) == ("acme.com", "acme.org", ["acme.org"])
    assert [person["person"] for person in found["people"]] == ["ann@acme.com", "bob@acme.org"]
    assert found["success"]["won"] == {"deals": 1, "amount": 90_000}
    assert story.rows("report", "person", "ANN@acme.com")["visitors"] == ["v1"]
    assert "who touched whom" in story.run("report", "account", "acme.com").output
    assert "model: expected one of" in story.run("report", "account", "acme.com", "--model", "magic", code=2).stderr
    assert "earned (linear)" in story.run("report", "person", "ann@acme.com").output


def test_a_filter_is_asked_of_the_live_totals_and_follows_them(story: Place) -> None:
    def won(*where: str) -> int:
        options = [option for each in where for option in ("--where", each)]
        rows = story.rows("report", "credits", "--model", "linear", "--by", "channel", *options)
        return sum(row["amount"] for row in rows)

    story.produce([account("acme.com", "2026-05-04T00:00:00Z", "a2", attributes={"industry": "SaaS", "country": "SE"})])
    story.run("wait", "--timeout", "60")

    assert (won("industry=saas"), won("industry=(none)"), won("industry=nobodys")) == (90_000, 0, 0)
    assert (won("country=se"), won("country=se", "industry=saas"), won("country=(none)")) == (90_000, 90_000, 0)
    assert {"attribute": "country", "value": "se", "accounts": 1} in story.rows("report", "attributes")
    story.produce([recorded("late", "2026-04-07T00:00:00Z", "bob@acme.org", "chat")])
    story.run("wait", "--timeout", "60")
    scanned, whole = (
        story.rows("report", "credits", "--model", "linear", "--by", "kind", *where)
        for where in (["--where", "country=se"], [])
    )
    assert scanned == whole
    assert "chat" in {row["kind"] for row in whole}


@pytest.mark.parametrize(
    "report",
    [
        "credits --model markov --by channel",
        "compare --models linear --by team",
        "sourced",
        "pipeline",
        "pipeline --by channel",
        "pipeline --day 2026-04-15",
        "forecast",
        "forecast --chances",
        "forecast --backtest",
        "velocity",
        "funnel",
        "warmth",
        "alerts",
    ],
)
def test_an_attribute_that_nobody_knows_is_refused_with_those_there_are(story: Place, report: str) -> None:
    story.produce([account("acme.com", "2026-05-04T00:00:00Z", "a2", attributes={"industry": "SaaS", "country": "SE"})])
    story.run("wait", "--timeout", "60")

    known = "country, industry, owner, segment, size"

    for misspelt in ("idustry=saas", "idustry=(none)"):
        refused = story.run("report", *report.split(), "--where", "country=SE", "--where", misspelt, code=2)

        assert f"where: expected an attribute of the accounts ({known}), got idustry" in refused.stderr


def test_a_usual_attribute_may_be_asked_for_though_no_account_has_it(story: Place) -> None:
    asked = ("report", "credits", "--model", "linear", "--by", "channel")

    assert story.rows(*asked, "--where", "segment=(none)", "--where", "owner=(none)") == story.rows(*asked)
    assert story.rows(*asked, "--where", "segment=enterprise") == []


def test_accounts_are_called_by_their_names(story: Place) -> None:
    story.produce([account("acme.com", "2026-05-05T00:00:00Z", "a3", name="Acme")])
    story.run("wait", "--timeout", "60")

    warm = {row["account"]: row["name"] for row in story.rows("report", "warmth")["accounts"]}
    assert warm["acme.com"] == "Acme"
    assert story.rows("report", "warmth", "acme.com")["name"] == "Acme"
    assert story.rows("report", "deal", "D1")["deal"]["account_name"] == "Acme"
    for asked in (("warmth", "acme.com"), ("journey", "acme.com"), ("account", "acme.com"), ("deal", "D1")):
        assert "Acme (acme.com)" in story.run("report", *asked).stdout
    assert json.loads(story.run("audit", "--format", "json").stdout)["clean"]
    story.produce([account("acme.com", "2026-05-06T00:00:00Z", "a4", name=None)])
    story.run("wait", "--timeout", "60")
    assert {row["name"] for row in story.rows("report", "warmth")["accounts"]} == {None}
    assert json.loads(story.run("audit", "--format", "json").stdout)["clean"]


def test_a_table_of_a_deal_shows_a_few_models_or_those_asked_for(story: Place) -> None:
    usual, asked = (story.run("report", "deal", "D1", *more).stdout for more in ((), ("--models", "shapley,markov")))

    assert "time decay" in usual and "shapley" not in usual
    assert "shapley" in asked and "markov" in asked and "linear" not in asked
    assert "one of" not in story.run("report", "deal", "D1", "--models", "all").stdout
    assert "expected all, or some of" in story.run("report", "deal", "D1", "--models", "magic", code=2).stderr


async def _metrics(settings: Settings) -> str:
    async with config.redis_client(settings) as redis:
        return (await lane_metrics(redis, settings)).decode()


def test_metrics_tell_of_facts_read_live_workers_and_what_waits(story: Place) -> None:
    crm = Webhook(url="https://crm.example.com/", secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",))
    settings = replace(story.settings, destinations={"crm": crm})

    text = until(lambda: asyncio.run(_metrics(settings)), lambda text: "touchline_workers 1.0" in text)

    assert 'touchline_lane_facts_total{lane="visitors"} 3.0' in text
    assert 'touchline_lane_partitions{lane="accounts"} 3.0' in text
    assert 'touchline_lane_outbox{lane="members"} 0.0' in text
    assert 'touchline_worker_refused_total{lane="visitors",worker="test"} 0.0' in text
    assert 'touchline_alerts_waiting{destination="crm"} 0.0' in text
