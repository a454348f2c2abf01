"""Who an account is and what its people did: stories of buying committees, told by facts."""

import random
from typing import Any

import pytest

from models.accounts import Account
from models.profiles import Profile
from models.recompute import Books, recompute
from models.totals import Totals
from streams.committees import account_document, person_document
from tests.test_lanes import Lanes
from tests.test_recompute import call, credit, deal, fact, hit, identify
from tests.worlds import RawFact, rules

LAW = rules()


def said(at: str, account: str, **fields: Any) -> RawFact:
    return fact("account-changes", account=account, messageId=f"{account} {at}", timestamp=at, **fields)


def says_crm(at: str, person: str, account: str) -> RawFact:
    ids = {"messageId": "crm", "timestamp": at, "person": person, "source": "crm"}
    return fact("contact-changes", **ids, account=account, role="Champion ")


def alias(at: str, previous: str, user: str, kind: str = "alias", **fields: Any) -> RawFact:
    message = fields.pop("message", f"{previous} is {user}")
    ids = {"messageId": message, "timestamp": at, "previousId": previous, "userId": user}
    return fact("identities", type=kind, **ids, **fields)


def at_rest(facts: list[RawFact], seed: int = 0) -> Lanes:
    """The facts in the lanes, in some order."""
    lanes = Lanes(LAW, random.Random(seed))
    shuffled = facts.copy()
    lanes.rng.shuffle(shuffled)
    lanes.take(shuffled)
    return lanes


def account_of(lanes: Lanes, name: str) -> Account:
    entity = lanes.build(f"account:{name}", dict(lanes.parts[f"account:{name}"]))
    assert isinstance(entity, Account)
    return entity


# --- five stakeholders on six devices -------------------------------------------------------

DAY = "2026-02-{:02}T10:00:00Z"
COMMITTEE = [
    hit(DAY.format(1), "phone", "?utm_source=google&utm_medium=cpc"),
    hit(DAY.format(2), "laptop", "?utm_source=linkedin&utm_medium=paid_social"),
    hit(DAY.format(3), "d3", "?utm_source=news&utm_medium=email"),
    hit(DAY.format(4), "d4", "?utm_source=expo"),
    hit(DAY.format(5), "d5"),
    hit(DAY.format(6), "d6", "?utm_source=google&utm_medium=cpc"),
    identify(DAY.format(1), "ann@acme.com", "phone"),
    identify(DAY.format(2), "ann@acme.com", "laptop"),
    identify(DAY.format(3), "bob@acme.com", "d3"),
    identify(DAY.format(4), "cy@acme.de", "d4"),
    identify(DAY.format(5), "dee@acme.com", "d5"),
    identify(DAY.format(6), "eve@gmail.com", "d6"),
    says_crm(DAY.format(7), "eve@gmail.com", "C1"),
    call(DAY.format(8), "bob@acme.com", rep="Jo"),
    call(DAY.format(9), "bob@acme.com", touch="again", rep="Jo"),
    said(
        DAY.format(7),
        "C1",
        domains=["acme.com", "acme.de"],
        name="Acme",
        attributes={"owner": "Jo", "industry": "SaaS"},
    ),
    deal(DAY.format(20), account="C1", amount="800", stage="closed_won"),
]


def test_five_stakeholders_on_six_devices_share_one_journey() -> None:
    document = account_document(account_of(at_rest(COMMITTEE), "C1"), LAW)

    assert [each["person"] for each in document["people"]] == [
        "ann@acme.com", "bob@acme.com", "cy@acme.de", "dee@acme.com", "eve@gmail.com"
    ]  # fmt: skip
    assert document["touches"]["total"] == 8
    assert (document["name"], document["owner"]) == ("Acme", "Jo")
    assert document["domains"] == document["merged_from"] == ["acme.com", "acme.de"]
    assert document["first_touch"]["visitor"] == "phone"
    assert [each["role"] for each in document["people"]] == [None, None, None, None, "champion"]
    assert document["touches"]["teams"] == {"marketing": 6, "sales": 2}


def test_who_touched_whom_is_told_by_rep_and_team() -> None:
    contacts = account_document(account_of(at_rest(COMMITTEE), "C1"), LAW)["contacts"]

    assert [(row["team"], row["rep"], row["person"], row["touches"]) for row in contacts[:2]] == [
        ("marketing", None, "ann@acme.com", 2),
        ("sales", "Jo", "bob@acme.com", 2),
    ]
    assert (contacts[1]["first"], contacts[1]["last"]) == (DAY.format(8), DAY.format(9))


def test_what_people_earned_adds_up_to_what_the_account_won() -> None:
    document = account_document(account_of(at_rest(COMMITTEE), "C1"), LAW)

    earned = [person["credits"]["won"]["linear"]["amount"] for person in document["people"]]
    assert sum(earned) == document["success"]["won"]["amount"] == 80_000
    assert document["success"]["sourced"] == {"marketing": 80_000, "sales": 0}
    assert document["success"]["influenced"] == {"marketing": 80_000, "sales": 80_000}


def test_a_person_is_told_with_every_id_merged_into_them() -> None:
    facts = [*COMMITTEE, alias(DAY.format(9), "u-7", "bob@acme.com"), call(DAY.format(10), "u-7", touch="third")]
    account = account_of(at_rest(facts), "C1")
    lead = next(each for each in account.dossier.leads.values() if "u-7" in each.ids)

    document = person_document(account, lead, LAW)

    assert document["person"] == "bob@acme.com"
    assert document["ids"] == ["bob@acme.com", "u-7"]
    assert len(document["touches"]) == 4
    assert document["credits"]["won"]["linear"]["count"] > 0


def test_a_merger_of_people_that_is_withdrawn_restores_the_totals_exactly() -> None:
    merged = alias(DAY.format(11), "eve@gmail.com", "zoe@beta.de", message="merge")
    undone = alias(DAY.format(12), "eve@gmail.com", "zoe@beta.de", "unlink", message="split", unlinks="merge")
    known = call(DAY.format(2), "zoe@beta.de", touch="zoe")

    before, during, after = (recompute([*COMMITTEE, known, *more], LAW) for more in ([], [merged], [merged, undone]))

    assert before.cells == after.cells and before.counts == after.counts
    assert before.cells != during.cells
    for seed in range(5):
        lanes = at_rest([*COMMITTEE, known, merged, undone], seed)
        live = lanes.totals.without_zeros()
        assert (live.cells, live.counts) == (before.cells, before.counts)


# --- who an account is ----------------------------------------------------------------------


def profile(*facts: RawFact, name: str = "C1") -> Profile:
    """The account's profile by both calculations."""
    by_lanes = account_of(at_rest(list(facts)), name).profile
    assert recompute(facts, LAW).companies[name][0] == by_lanes
    return by_lanes


def test_absent_is_unchanged_null_is_cleared_and_the_latest_of_each_field_holds() -> None:
    found = profile(
        said(DAY.format(1), "C1", name="Old", quiet=True, attributes={"Industry": " SaaS ", "size": 40, "vip": True}),
        said(DAY.format(2), "C1", name="New", attributes={"size": None, "segment": ""}),
        said(DAY.format(3), "C1", quiet=None),
    )

    assert (found.name, found.quiet) == ("New", False)
    assert found.attributes == {"industry": "SaaS", "vip": True}


def test_attributes_that_are_null_clear_what_was_said_before() -> None:
    found = profile(
        said(DAY.format(1), "C1", attributes={"industry": "SaaS"}),
        said(DAY.format(2), "C1", attributes=None),
        said(DAY.format(3), "C1", attributes={"size": 3}),
    )

    assert found.attributes == {"size": 3}


def test_what_a_survivor_does_not_say_those_merged_into_it_may_the_latest_first() -> None:
    found = profile(
        said(DAY.format(1), "C1", attributes={"industry": "SaaS"}),
        said(DAY.format(2), "C2", mergedInto="C1", name="Two", attributes={"industry": "Retail", "size": 3}),
        said(DAY.format(3), "C3", mergedInto="C1", name="Three", parent="P"),
    )

    assert (found.name, found.parent) == ("Three", "P")
    assert found.attributes == {"industry": "SaaS", "size": 3}
    assert found.merged_from == ("C2", "C3")


def test_a_domain_or_customer_belongs_to_whoever_claimed_it_last() -> None:
    facts = [
        said(DAY.format(1), "C1", domains=["acme.com", "acme.de"], customers=["stripe:1", "stripe:2"]),
        said(DAY.format(2), "C2", domains=["acme.com"], customers=["stripe:1"]),
    ]

    one, two = profile(*facts), profile(*facts, name="C2")

    assert (one.domains, one.customers) == (("acme.de",), ("stripe:2",))
    assert (two.domains, two.customers) == (("acme.com",), ("stripe:1",))
    back = profile(*facts, said(DAY.format(3), "C2", customers=None))
    assert back.customers == ("stripe:1", "stripe:2")


def test_a_parent_company_knows_its_children_and_changes_no_credit() -> None:
    own = [*COMMITTEE, call(DAY.format(2), "ceo@holding.com", touch="ceo")]
    parent = said(DAY.format(9), "C1", parent="holding.com")

    lanes = at_rest([*own, parent])

    assert account_of(lanes, "holding.com").company.children == ("C1",)
    assert lanes.totals.without_zeros().cells == recompute(own, LAW).cells


def test_a_domain_taken_over_by_a_crm_account_takes_its_history_along_and_back() -> None:
    claims = said(DAY.format(7), "C1", domains=["acme.com"])
    drops = said(DAY.format(8), "C1", domains=[])
    visit = [hit(DAY.format(1), "phone"), identify(DAY.format(1), "ann@acme.com", "phone")]
    bought = deal(DAY.format(20), account="C1", amount="800", stage="closed_won")

    def won(*facts: RawFact) -> dict[str | None, tuple[int, int]]:
        return credit(recompute([*visit, bought, *facts], LAW), "won", "linear", "channel")

    assert won(claims) == {"direct": (1_000_000, 80_000)}
    assert won() == won(claims, drops) == {"unattributed": (1_000_000, 80_000)}


# --- attributes and totals --------------------------------------------------------------------


def filtered(books: Books | Totals, label: str) -> int:
    """The won amount under a label."""
    cells = books.cells.items()
    wanted = f"{label}/won"
    return sum(n for cell, n in cells if (cell.conversion, cell.dimension) == (wanted, "channel"))


@pytest.mark.parametrize("seed", range(3))
def test_an_attribute_that_changes_moves_the_totals_from_one_value_to_the_other(seed: int) -> None:
    changed = said(DAY.format(25), "C1", attributes={"industry": "Retail"})
    whole = sum(n for cell, n in recompute(COMMITTEE, LAW).cells.items() if cell[:2] == ("won", "channel"))

    before, after = at_rest(COMMITTEE, seed), at_rest([*COMMITTEE, changed], seed)

    assert filtered(before.totals, "industry=saas") == whole
    assert filtered(after.totals, "industry=saas") == 0
    assert filtered(after.totals, "industry=retail") == whole
    assert after.totals.without_zeros().cells == recompute([*COMMITTEE, changed], LAW).cells
