"""The batch recomputation: against the independent calculation, and by hand.

TOUCHLINE_WORLDS is how many generated worlds are compared (default 240, 4,000 in the slow test).
"""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution import PARTICIPATION
from models.catalogue import OPEN, STAGE
from models.cells import Cells
from models.counts import SHARED, Count
from models.custom import CustomModel
from models.errors import BadInput
from models.filters import label_in
from models.recompute import Books, recompute
from models.rules import Rules
from models.settings import Settings
from models.vectors import numbers_of
from streams.reference import is_bot, rules_from
from tests import oracle
from tests.worlds import RECORDED, VARIANTS, RawFact, rules, without_ties, world, worlds

REGISTRABLE, FREE_MAIL = oracle.default_registrable(), oracle.default_free_mail()
WORLDS = int(os.environ.get("TOUCHLINE_WORLDS", "240"))
Numbers = dict[tuple[str, str, str, str, str | None], tuple[int, int]]


# --- against the oracle -----------------------------------------------------------------


def test_recompute_agrees_with_the_independent_calculation():
    for seed in range(WORLDS):
        compare(without_ties(world(random.Random(seed), seed % 40)), seed % VARIANTS, f"seed {seed}")


@pytest.mark.slow
def test_recompute_agrees_with_the_independent_calculation_on_thousands_of_worlds():
    for seed in range(10_000, 10_000 + max(WORLDS, 4000)):
        compare(without_ties(world(random.Random(seed), seed % 60)), seed % VARIANTS, f"seed {seed}")


@given(worlds(25).map(without_ties), st.integers(0, VARIANTS - 1))
@settings(max_examples=60, deadline=None)
def test_recompute_agrees_with_the_independent_calculation_however_worlds_shrink(facts: list[RawFact], variant: int):
    compare(facts, variant, "shrunk")


def compare(facts: list[RawFact], variant: int, where: str) -> None:
    """Both calculations of one world, everything that they both say."""
    law = rules(variant)
    books = recompute(facts, law)
    theirs = oracle.recompute(facts, oracle_settings(law), registrable=REGISTRABLE, free_mail=FREE_MAIL)

    assert by_model(books.cells, law, law.models) == theirs.credits, where
    assert books.pipeline == {stage or "(none)": list(row) for stage, row in theirs.pipeline.items()}, where
    assert set(books.waiting) == {waiting_name(*entry[:3]) for entry in theirs.waiting}, where
    assert {name: (lead.at, lead.account) for name, lead in books.leads.items()} == {
        name: (person["lead"], person["account"]) for name, person in theirs.persons.items()
    }, where
    assert by_touch(books, law) == their_credits(theirs), where
    assert len(books.refusals) == len(theirs.refused), where


Shares = dict[tuple[str, str], list[tuple[str, int, int]]]
"""What each touch earned, by conversion of a deal and model."""


def by_touch(books: Books, law: Rules) -> Shares:
    found: Shares = {}
    for conversions in books.deals.values():
        for name, credits in conversions.items():
            for place, model in enumerate(law.models):
                rows = [
                    (credit.touch.id if credit.touch else oracle.UNATTRIBUTED, credit.shares(law)) for credit in credits
                ]
                found[name, model] = [(touch, *row[2 * place : 2 * place + 2]) for touch, row in rows]
    return {key: earned for key, rows in found.items() if (earned := earning(rows))}


def their_credits(theirs: oracle.Books) -> Shares:
    found: Shares = {}
    for name, booked in theirs.deals.items():
        kinds = [
            (f"{kind}:{name}", booked[kind]) for kind in booked if kind in ("opportunity", "won") or kind[:6] == STAGE
        ]
        refunds = [(f"refund:{name}/{each['id']}", each) for each in booked["refunds"]]
        for conversion, entry in (*kinds, *refunds):
            found.update({(conversion, model): rows for model, rows in entry["credits"].items()})
    return {key: earned for key, rows in found.items() if (earned := earning(rows))}


def earning(rows: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    return [row for row in rows if row[1] or row[2]]


def waiting_name(kind: str, deal: str, fact: str) -> str:
    return f"{kind}:{deal}/{fact}" if fact else f"{kind}:{deal}"


def oracle_settings(law: Rules) -> dict[str, Any]:
    """Our settings in the oracle's words; its channel table and referrers are its own."""
    ours = law.settings
    return {
        "reporting_currency": ours.currency,
        "time_zone": ours.time_zone,
        "rates": [(rate.date, rate.source, rate.target, rate.rate) for rate in ours.rates],
        "lookback_days": {kind: getattr(ours.lookback, kind) for kind in ("lead", "opportunity", "won", "stage")}
        | {f"{STAGE}{stage}": days for stage, days in ours.lookback.stages.items()},
        "conversion_stages": ours.conversion_stages,
        "asked": law.models,
        "team_split": ours.team_split,
        "models": {name: custom(model) for name, model in ours.models.items()},
        "half_life_days": ours.time_decay_half_life_days,
        "direct_sessions": ours.direct_touches,
        "contacts_only": ours.deal_contacts_only,
        "own_domains": list(ours.own_domains),
        "excluded_referrers": list(ours.excluded_referrers),
        "pipelines": {name: {"won": each.won, "lost": each.lost} for name, each in ours.pipelines.items()},
        "max_persons_of_visitor": ours.identity.persons_per_visitor,
        "max_emails_of_user": ours.identity.emails_per_user_id,
        "is_bot": is_bot,
        "milestones": ours.milestones,
        "trial_events": ours.trial_events,
    }


def custom(model: CustomModel) -> dict[str, Any]:
    """A model of the settings as the oracle reads it."""
    said = {name: value for name, value in msgspec.structs.asdict(model).items() if value}
    caps = model.caps
    if caps is not None:
        said["caps"] = {"by": caps.by, "max": caps.max, "values": caps.values}
    if model.decay is not None:
        said["decay"] = {"half_life_days": model.decay.half_life_days}
    return said


def places(law: Rules, models: Sequence[str]) -> list[tuple[int, str]]:
    """Where cells keep each of these models."""
    return [(place, model) for place, model in enumerate(law.models) if model in models]


def by_model(cells: Cells, law: Rules, models: Sequence[str]) -> Numbers:
    """Cells as the oracle has them: one entry for each of these models; `open` it does not tell."""
    numbers: Numbers = {}
    for cell, vector in cells.items():
        if label_in(cell.conversion) or cell.conversion == OPEN:
            continue
        if cell.dimension not in oracle.DIMENSIONS:
            continue
        row = numbers_of(vector, law.width)
        for place, model in places(law, models):
            if any(row[2 * place : 2 * place + 2]):
                key = (cell.conversion, model, cell.dimension, cell.day, cell.value)
                numbers[key] = (row[2 * place], row[2 * place + 1])
    return numbers


# --- laws -------------------------------------------------------------------------------


@given(worlds(30), st.integers(0, VARIANTS - 1), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_books_depend_neither_on_order_nor_on_copies(facts: list[RawFact], variant: int, rng: random.Random):
    copies = facts + [fact for fact in facts if rng.random() < 0.5]
    rng.shuffle(copies)

    once, again = recompute(facts, rules(variant)), recompute(copies, rules(variant))

    assert replace(again, refusals=[]) == replace(once, refusals=[])


@given(worlds(30), st.integers(0, VARIANTS - 1))
@settings(max_examples=60, deadline=None)
def test_credits_add_up_in_every_model_and_dimension(facts: list[RawFact], variant: int):
    law = rules(variant)
    books = recompute(facts, law)

    by_dimension: dict[tuple[str, str], int] = {}
    for cell, numbers in books.cells.items():
        key = (cell.conversion, cell.dimension)
        by_dimension[key] = by_dimension.get(key, 0) + numbers
    for numbers in by_dimension.values():
        row = numbers_of(numbers, law.width)
        apart = 2 * law.models.index(PARTICIPATION)
        del row[apart : apart + 2]
        assert len(set(row[::2])) == len(set(row[1::2])) == 1
    assert all(
        numbers_of(vector, law.width)[0] == 1_000_000 * len(books.leads) for vector in totals_of(by_dimension, "lead")
    )


def totals_of(by_dimension: dict[tuple[str, str], int], conversion: str) -> list[int]:
    return [numbers for (kind, _), numbers in by_dimension.items() if kind == conversion]


# --- by hand ----------------------------------------------------------------------------


def fact(topic: str, **fields: Any) -> RawFact:
    return topic, json.dumps(fields).encode(), RECORDED


def hit(at: str, visitor: str = "v1", query: str = "", **fields: Any) -> RawFact:
    page = {"url": f"https://www.site.com/{query}"}
    ids = {"messageId": f"hit {at}", "timestamp": at, "anonymousId": visitor}
    return fact("page-views", type="page", context={"page": page}, **ids, **fields)


def identify(at: str, email: str, visitor: str = "v1", message: str = "identify", **fields: Any) -> RawFact:
    ids = {"messageId": message, "timestamp": at, "anonymousId": visitor}
    return fact("identities", type="identify", traits={"email": email}, **ids, **fields)


def call(at: str, person: str, **fields: Any) -> RawFact:
    return fact("touches", touchId=f"call {at}", timestamp=at, person=person, kind="call", **fields)


def deal(at: str, message: str = "deal", **fields: Any) -> RawFact:
    return fact("deal-changes", dealId="D", messageId=message, timestamp=at, **fields)


def refund(at: str, amount: str, **fields: Any) -> RawFact:
    return fact("billing", type="refund", dealId="D", messageId=f"refund {at}", timestamp=at, amount=amount, **fields)


def credit(books: Books, conversion: str, model: str, dimension: str) -> dict[str | None, tuple[int, int]]:
    """Count and amount by the dimension's value, all days added up."""
    found: dict[str | None, tuple[int, int]] = {}
    for (kind, name, column, _, value), (count, amount) in by_model(books.cells, rules(), (model,)).items():
        if (kind, name, column) == (conversion, model, dimension):
            before = found.get(value, (0, 0))
            found[value] = (before[0] + count, before[1] + amount)
    return found


def test_a_win_is_shared_by_the_whole_account_and_its_refund_by_the_same_split():
    books = recompute(
        [
            hit("2026-02-01T10:00:00Z", query="?utm_source=google&utm_medium=cpc"),
            identify("2026-02-01T10:05:00Z", "ann@acme.com"),
            call("2026-02-10T10:00:00Z", "bob@acme.com", rep="Jo"),
            deal("2026-02-20T10:00:00Z", account="www.acme.com", amount="66.50", stage="closed_won"),
            refund("2026-03-02T10:00:00Z", "10.01"),
        ],
        rules(),
    )

    assert credit(books, "won", "position_based", "channel") == {
        "paid_search": (500_000, 3325 - 501),
        "sales_outbound": (500_000, 3325 - 500),
    }
    assert credit(books, "won", "last_touch", "rep") == {"Jo": (1_000_000, 5649)}
    assert {cell.day for cell in books.cells if cell.conversion == "won"} == {"2026-02-20", "2026-03-02"}
    assert list(books.deals["D"]) == ["opportunity:D", "won:D", "refund:D/refund 2026-03-02T10:00:00Z"]


def test_sessions_before_the_first_identification_belong_to_the_person_first_identified():
    books = recompute(
        [
            hit("2026-02-01T10:00:00Z", query="?utm_source=expo"),
            identify("2026-02-03T10:00:00Z", "ann@acme.com"),
            identify("2026-02-05T10:00:00Z", "dee@beta.de", message="shared"),
            hit("2026-02-05T10:00:00Z"),
        ],
        rules(),
    )

    owners = {account: [person for person, _ in journey] for account, journey in books.journeys.items()}
    assert owners == {"acme.com": ["ann@acme.com"], "beta.de": ["dee@beta.de"]}


def test_an_unlink_moves_history_back_as_if_the_link_had_never_been():
    facts = [hit("2026-02-01T10:00:00Z"), identify("2026-02-01T10:00:00Z", "ann@acme.com")]
    ids = {"messageId": "undo", "timestamp": "2026-02-09T10:00:00Z", "anonymousId": "v1", "unlinks": "identify"}

    books = recompute([*facts, fact("identities", type="unlink", **ids)], rules())

    assert not books.journeys
    assert list(books.leads) == ["ann@acme.com"]


def test_more_persons_than_a_visitor_may_be_end_all_its_identifications():
    days = [f"2026-02-{day:02}T10:00:00Z" for day in (1, 2, 3)]
    facts = [hit(days[0]), *(identify(at, f"p{at[:10]}@acme.com", message=at) for at in days)]

    assert not recompute(facts, rules(1)).journeys
    assert recompute(facts, rules(1)).counts[Count(SHARED, "visitor\0v1")] == (3,)
    assert recompute(facts[:-1], rules(1)).journeys


def test_whoever_has_an_address_at_a_free_mail_host_is_an_account_of_their_own():
    books = recompute([call("2026-02-01T10:00:00Z", "hal@mail.austria.com")], rules())

    assert list(books.journeys) == ["hal@mail.austria.com"]


def test_a_track_call_whose_event_is_no_form_identifies_and_is_no_touch():
    clicked = {"type": "track", "event": "Clicked", "timestamp": "2026-02-01T10:00:00Z", "anonymousId": "v1"}

    books = recompute([fact("form-fills", messageId="c", userId="u1", **clicked)], rules())

    assert list(books.leads) == ["u1"]
    assert not books.journeys


def test_an_own_domain_is_no_source_in_whatever_form_it_is_written():
    arrive = rules_from(Settings(own_domains=("Bücher.example",))).arrive

    assert arrive("https://site.com/", "https://shop.xn--bcher-kva.example/", None).origin is None
    assert arrive("https://site.com/", "https://bücher.example/", None).origin is None


def test_a_claimed_domain_counts_for_the_account_that_claims_it():
    claim = {"account": "C1", "messageId": "claim", "timestamp": "2026-05-01T00:00:00Z", "domains": ["acme.com"]}

    books = recompute([call("2026-02-01T10:00:00Z", "ann@acme.com"), fact("account-changes", **claim)], rules())

    assert list(books.journeys) == ["C1"]


def test_a_refund_waits_while_its_deal_is_not_won_and_money_while_it_has_no_rate():
    facts = [
        deal("2026-02-01T00:00:00Z", amount=100, currency="CHF", stage="closed_won"),
        refund("2026-02-02T00:00:00Z", "5", currency="USD"),
    ]

    assert recompute(facts, rules()).waiting == {
        "opportunity:D": "no rate from CHF to USD",
        "won:D": "no rate from CHF to USD",
    }
    reopened = [*facts, deal("2026-02-03T00:00:00Z", "again", stage="new", currency=None)]
    assert recompute(reopened, rules()).waiting == {"refund:D/refund 2026-02-02T00:00:00Z": "the deal is not won"}


def test_what_is_refused_is_listed_and_of_two_facts_with_one_id_the_earlier_stands():
    broken = ("touches", b"{", RECORDED)
    facts = [identify("2026-02-02T00:00:00Z", "dee@beta.de"), identify("2026-02-01T00:00:00Z", "ann@acme.com"), broken]

    books = recompute(facts, rules())

    assert list(books.leads) == ["ann@acme.com"]
    assert books.conflicts == {("identities", "identify")}
    [(raw, error)] = books.refusals
    assert raw == broken and isinstance(error, BadInput)
