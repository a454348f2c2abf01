"""`touchline link` and `unlink` on real servers: what they say becomes facts, and totals follow and return."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.running import STORY, Place, account, deal, identify, page, touch

MORE = (
    touch("z1", "2026-04-03T09:00:00Z", "zoe@beta.io", "demo"),
    identify("i9", "2026-04-04T10:00:00Z", "v1", "u-7"),
    ("identities", {
        "type": "identify", "messageId": "both", "timestamp": "2026-04-04T11:00:00Z", "anonymousId": "v1",
        "userId": "u-7", "traits": {"email": "ann@acme.com"},
    }),
)  # fmt: skip

PEOPLE = ("ann@omega.com", "ann@omega.com", "bob@omega.com", "cy@omega.de", "dee@gmail.com", "eve@omega.de")
SITE = "https://site.example/?utm_source=s"
COMMITTEE = (
    *(page(f"o{n}", f"2026-06-0{n}T10:00:00Z", f"device-{n}", f"{SITE}{n}") for n in range(1, 7)),
    *(identify(f"w{n}", f"2026-06-0{n}T10:05:00Z", f"device-{n}", each) for n, each in enumerate(PEOPLE, start=1)),
    ("contact-changes", {
        "person": "dee@gmail.com", "messageId": "c9", "timestamp": "2026-06-08T00:00:00Z", "account": "C9",
        "source": "crm", "role": "Champion",
    }),
    account("C9", "2026-06-08T00:00:00Z", "c9", domains=["omega.com", "omega.de"], name="Omega", parent="acme.com"),
    deal("O1", "2026-06-20T00:00:00Z", "o9", account="C9", amount="600.00", stage="closed_won"),
)  # fmt: skip
"""Five people of one account on six devices, two of its domains and a free-mail address, before a sale."""


@pytest.fixture(scope="module")
def place(new_place: Callable[[int], Place]) -> Iterator[Place]:
    """The story and a stranger, in the totals; the worker goes on running."""
    place = new_place(2)
    place.produce((*STORY, *MORE, *COMMITTEE))
    with place.worker():
        place.run("wait", "--timeout", "60")
        yield place


def won(place: Place) -> Any:
    return place.rows("report", "credits", "--model", "linear", "--by", "kind")


def people(place: Place, account: str) -> list[str]:
    return [each["person"] for each in place.rows("report", "account", account)["people"]]


def test_five_stakeholders_on_six_devices_share_one_journey(place: Place) -> None:
    told = place.rows("report", "journey", "omega.com")
    found = place.rows("report", "account", "C9")
    [won_by] = [each for each in place.rows("report", "deal", "O1")["conversions"] if each["kind"] == "won"]

    assert {touch["visitor"] for touch in told["touches"]} == {f"device-{n}" for n in range(1, 7)}
    assert [touch["person"] for touch in told["touches"]] == list(PEOPLE)
    assert [touch["role"] for touch in told["touches"]] == [None, None, None, None, "champion", None]
    assert [touch["credits"]["linear"]["amount"] for touch in won_by["touches"]] == [10_000] * 6
    assert (found["name"], found["domains"]) == ("Omega", ["omega.com", "omega.de"])
    assert found["parent"] == {"account": "acme.com", "name": None}
    assert {"account": "C9", "name": "Omega"} in place.rows("report", "account", "acme.com")["children"]
    assert {each["person"]: each["credits"]["won"]["linear"]["amount"] for each in found["people"]} == {
        person: 10_000 * PEOPLE.count(person) for person in PEOPLE
    }


def test_two_persons_are_merged_and_parted_again(place: Place) -> None:
    before = won(place)

    said = place.run("link", "person", "zoe@beta.io", "bob@acme.org", "--wait").output
    merged = won(place)
    place.run("unlink", "person", "bob@acme.org", "zoe@beta.io", "--wait")

    assert "zoe@beta.io is bob@acme.org (identities touchline-" in said
    assert any(row["kind"] == "demo" for row in merged)
    assert won(place) == before


def test_the_link_of_an_identify_is_withdrawn_by_whoever_it_links(place: Place) -> None:
    assert place.rows("report", "person", "u-7")["person"] == "ann@acme.com"

    said = place.run("unlink", "person", "u-7", "--wait").output

    assert "message both is withdrawn" in said
    assert place.rows("report", "person", "ann@acme.com")["ids"] == ["ann@acme.com"]


def test_a_person_is_attached_to_an_account_and_detached(place: Place) -> None:
    place.run("link", "contact", "zoe@beta.io", "acme.com", "--wait")
    assert "zoe@beta.io" in people(place, "acme.com")

    place.run("unlink", "contact", "zoe@beta.io", "--wait")
    assert "zoe@beta.io" not in people(place, "acme.com")


def test_accounts_are_merged_and_parted_again(place: Place) -> None:
    place.run("link", "account", "beta.io", "acme.com", "--wait")
    found = place.rows("report", "account", "beta.io")
    assert (found["account"], found["merged_from"]) == ("acme.com", ["acme.org", "beta.io"])

    place.run("unlink", "account", "beta.io", "--wait")
    assert place.rows("report", "account", "beta.io")["account"] == "beta.io"


def test_a_dry_run_only_tells_the_facts(place: Place) -> None:
    before = won(place)

    [said] = place.rows("link", "person", "zoe@beta.io", "bob@acme.org", "--dry-run")

    assert said["topic"] == "identities"
    assert (said["fact"]["previousId"], said["fact"]["userId"]) == ("zoe@beta.io", "bob@acme.org")
    place.run("wait", "--timeout", "60")
    assert won(place) == before


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ("link", "person", "nobody@x.io", "bob@acme.org")),
        (2, ("link", "person", "bob@acme.org", "BOB@acme.org")),
        (2, ("link", "contact", "null", "acme.com")),
        (3, ("unlink", "person", "bob@acme.org")),
        (3, ("unlink", "contact", "bob@acme.org")),
        (3, ("unlink", "account", "acme.org")),
        (2, ("unlink", "message", "m1")),
    ],
)
def test_what_cannot_be_done_is_said_with_the_reason(place: Place, code: int, arguments: tuple[str, ...]) -> None:
    place.run(*arguments, code=code)


def test_the_books_balance_after_all_that(place: Place) -> None:
    place.run("audit")
