"""Other rules are computed beside the live ones, compared with them and taken over, while facts flow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from models.settings import Settings
from tests.running import Fact, Place, deal, identify, page, supervised, until

ADS = "https://www.example.com/?utm_source=partner-net&utm_medium=odd&utm_campaign=spring"
PARTNER = """
[[channels]]
channel = "partner"
source = ["partner-*"]
[lookback]
won = 20
[models.partners_first]
channels = { partner = 3 }
[models.directs_first]
channels = { direct = 3 }
"""


def story(visitor: int) -> list[Fact]:
    """A visit in March, another in April, and the deal they led to."""
    name = f"v{visitor}"
    return [
        page(f"m{visitor}", "2026-03-01T09:00:00Z", name, "https://www.example.com/"),
        page(f"n{visitor}", "2026-04-10T09:00:00Z", name, ADS),
        identify(f"i{visitor}", "2026-04-10T09:05:00Z", name, f"ann@corp{visitor}.com"),
        deal(
            f"D{visitor}",
            "2026-04-20T12:00:00Z",
            f"d{visitor}",
            account=f"corp{visitor}.com",
            stage="closed_won",
            amount="10.00",
        ),
    ]


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Iterator[Place]:
    """A worker that is started again when it ends, with ten deals counted."""
    here = Place(settings, tmp_path)
    here.run("topics", "--create")
    with supervised(here):
        here.produce(fact for visitor in range(10) for fact in story(visitor))
        here.run("wait")
        yield here


def won_by(place: Place) -> dict[str, int]:
    rows = place.rows("report", "credits", "--model", "linear", "--by", "channel")
    return {row["channel"]: row["amount"] for row in rows}


def version_rows(place: Place) -> dict[str, Any]:
    return {row["version"]: row for row in place.rows("settings", "versions")}


def test_rules_are_tried_beside_the_live_ones_compared_and_taken_over(place: Place, settings: Settings) -> None:
    assert won_by(place) == {"direct": 5_000, "referral": 5_000}

    place.configure(PARTNER)
    told = place.run("settings", "preview", "with-partners").output
    assert "lookback.won: 90 → 20" in told
    assert won_by(place) == {"direct": 5_000, "referral": 5_000}, "a preview changes nothing that is live"
    until(lambda: version_rows(place)["with-partners"]["progress"], lambda progress: progress == 1.0, 60)

    place.produce(story(10))
    place.run("wait")
    document = until(
        lambda: place.rows(
            *("report", "compare", "--settings", "live,with-partners"),
            *("--models", "linear,partners_first", "--by", "channel"),
        ),
        lambda document: document["same_facts"],
        60,
    )
    shares = {row["channel"]: row["linear"]["difference"]["amount"] for row in document["rows"]}
    assert shares == {"direct": -5_500, "referral": -5_500, "partner": 11_000}
    assert document["affected"] == {"touches": 11, "conversions": 11}
    assert [row["partners_first"]["old"] for row in document["rows"]] == [None] * 3

    place.run("settings", "take-over", "with-partners")

    assert won_by(place) == {"partner": 11_000}
    assert {name: row["state"] for name, row in version_rows(place).items()} == {"with-partners": "live"}
    place.produce(story(11))
    place.run("wait")
    assert won_by(place) == {"partner": 12_000}
    place.run("audit")
    with Redis.from_url(settings.redis.url) as redis:
        assert not list(redis.scan_iter(match="{accounts:*")), "the tables of the former rules are gone"


def test_a_preview_that_is_dropped_leaves_nothing_behind(place: Place, settings: Settings) -> None:
    place.configure(PARTNER)
    place.run("settings", "preview", "v2")
    until(lambda: version_rows(place)["v2"]["progress"], lambda progress: progress == 1.0, 60)

    place.run("settings", "drop", "v2")

    assert list(version_rows(place)) == ["live"]
    with Redis.from_url(settings.redis.url) as redis:
        until(lambda: list(redis.scan_iter(match="{v2.*")), lambda found: not found)
    assert "no preview v2" in place.run("settings", "take-over", "v2", code=3).stderr


def test_a_preview_must_differ_bear_a_plain_name_and_keep_the_partitions(place: Place) -> None:
    assert "rules that differ" in place.run("settings", "preview", "same", code=2).stderr
    place.configure(PARTNER)
    assert "letters, digits" in place.run("settings", "preview", "a b", code=2).stderr
    place.configure("", partitions=4)
    assert "topics keep their partitions" in place.run("settings", "preview", "v2", code=2).stderr


def test_a_changed_file_does_not_change_what_reports_say(place: Place) -> None:
    place.configure(PARTNER)

    assert won_by(place) == {"direct": 5_000, "referral": 5_000}
    assert json.loads(place.run("audit", "--format", "json").stdout)["clean"]
