"""What users would tell of it, on real servers, by the commands they would use."""

from collections.abc import Iterator
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
