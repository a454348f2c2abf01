"""What users would tell of it, on real servers, by the commands they would use."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from tests.running import Fact, Place, deal, identify, page, touch

SITE = "https://www.example.com"
ADVERT = f"{SITE}/guide?utm_source=google&utm_medium=cpc&utm_campaign=winter"
FIVE_MODELS = ("first_touch", "last_touch", "linear", "u_shaped", "team_split")


def anonymous_first_visit() -> list[Fact]:
    """An advert in January, a name in April, calls and a sale some days later."""
    return [
        page("a1", "2026-01-12T09:00:00Z", "laptop", ADVERT),
        identify("a2", "2026-04-02T10:00:00Z", "laptop", "ann@acme.com"),
        touch("a3", "2026-04-03T09:00:00Z", "ann@acme.com", "call", rep="Bo"),
        touch("a4", "2026-04-06T09:00:00Z", "ann@acme.com", "demo", rep="Bo"),
        deal("A", "2026-04-04T12:00:00Z", "a5", account="acme.com", stage="discovery", amount="9000.00"),
        deal("A", "2026-04-10T12:00:00Z", "a6", stage="closed_won"),
    ]


@pytest.fixture
def told(settings: Settings, tmp_path: Path) -> Iterator[Place]:
    """The story, in the totals."""
    place = Place(settings, tmp_path)
    place.run("topics", "--create")
    place.produce(anonymous_first_visit())
    with place.worker():
        place.run("wait")
        yield place


def amounts(place: Place, model: str, by: str) -> dict[str, int]:
    rows = place.rows("report", "credits", "--model", model, "--by", by)
    return {row[by]: row["amount"] for row in rows}


def test_a_visit_three_months_before_anybody_knew_who_it_was_earns_its_share(told: Place) -> None:
    first, *_ = told.rows("report", "journey", "acme.com")["touches"]

    assert (first["at"], first["person"], first["campaign"]) == ("2026-01-12T09:00:00Z", "ann@acme.com", "winter")
    assert amounts(told, "first_touch", "campaign") == {"winter": 900_000}
    assert amounts(told, "linear", "channel") == {"paid_search": 300_000, "sales_outbound": 600_000}
    assert amounts(told, "linear", "rep") == {None: 300_000, "Bo": 600_000}


def test_sales_and_marketing_see_one_deal_under_five_models(told: Place) -> None:
    by_team = {model: amounts(told, model, "team") for model in FIVE_MODELS}
    opened = told.rows("report", "deal", "A")
    won: dict[str, Any] = next(each for each in opened["conversions"] if each["kind"] == "won")

    assert by_team == {
        "first_touch": {"marketing": 900_000},
        "last_touch": {"sales": 900_000},
        "linear": {"sales": 600_000, "marketing": 300_000},
        "u_shaped": {"marketing": 720_000, "sales": 180_000},
        "team_split": {"marketing": 450_000, "sales": 450_000},
    }
    for model in FIVE_MODELS:
        shares = [each["credits"].get(model, {"amount": 0})["amount"] for each in won["touches"]]
        assert sum(shares) == won["amount"] == 900_000, model
    compared = told.rows("report", "compare", "--models", ",".join(FIVE_MODELS), "--by", "team")
    assert {row["team"]: row["linear"]["amount"] for row in compared} == by_team["linear"]


def test_a_deal_of_ninety_days_loses_probability(settings: Settings, tmp_path: Path) -> None:
    """Who won did so within five weeks; two open deals of one size differ by age alone."""
    place = Place(settings, tmp_path)
    place.run("topics", "--create")
    place.produce(deals_that_were_won_soon_or_lost_late())
    with place.worker():
        place.run("wait")
        owners = {row["owner"]: row for row in place.rows("report", "pipeline", "--by", "owner")}
        chances = {row["week"]: row["chance"] for row in place.rows("report", "forecast", "--chances")}
        then = place.rows("report", "pipeline", "--day", ago(90)[:10])

        assert owners["old"]["amount"] == owners["young"]["amount"] == 1_000_000
        assert 0 < owners["old"]["weighted_amount"] * 4 < owners["young"]["weighted_amount"]
        assert chances[95 // 7] < chances[5] < chances[0]
        assert then[0]["count"] == 1 and then[0]["weighted_amount"] > 4 * owners["old"]["weighted_amount"]
        assert place.rows("audit")["clean"]


def deals_that_were_won_soon_or_lost_late() -> list[Fact]:
    """Forty closed deals, most of them long ago, and two that are open for 95 days and for one."""
    facts = []
    for number in range(40):
        lasts = 7 + number % 28 if number % 2 else 40 + 2 * number
        opened, how = 260 + number, "closed_won" if number % 2 else "closed_lost"
        facts.append(deal(f"D{number}", ago(opened), f"a{number}", account="acme.com", stage="demo", amount="10000.00"))
        facts.append(deal(f"D{number}", ago(opened - lasts), f"b{number}", stage=how))
    for owner, days in (("old", 95), ("young", 1)):
        fields = {"account": "acme.com", "stage": "demo", "amount": "10000.00", "owner": owner}
        facts.append(deal(owner, ago(days), owner, **fields))
    return facts


def ago(days: int) -> str:
    """So many days before now."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
