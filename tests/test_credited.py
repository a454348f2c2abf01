"""What conversions at stages, contact roles, participation and paths come to, by hand and in the lanes.

Every story is told to the lanes as well: they must come to the books of the batch.
"""

import random
from typing import Any

import msgspec

from models.cells import Cell
from models.counts import table_of
from models.recompute import Books, recompute
from models.rules import Rules
from models.settings import parse_settings
from models.vectors import numbers_of
from streams.reference import rules_from
from tests.test_lanes import Lanes
from tests.test_recompute import call, deal, fact, hit, identify
from tests.worlds import RawFact

ONE, TWO, THREE, FOUR = (f"2026-02-{day:02}T10:00:00Z" for day in (1, 5, 10, 20))
AD, NEWS = "?utm_source=google&utm_medium=cpc", "?utm_source=news&utm_medium=email"


def rules(**settings: Any) -> Rules:
    return rules_from(parse_settings(settings))


def books_of(law: Rules, facts: list[RawFact]) -> Books:
    """The books of the batch, which the lanes come to in several orders."""
    books = recompute(facts, law)
    for seed in range(6):
        shuffled = facts.copy()
        random.Random(seed).shuffle(shuffled)
        lanes = Lanes(law, random.Random(seed))
        lanes.take(shuffled)
        live = lanes.totals.without_zeros()
        assert (live.cells, live.counts) == (books.cells, books.counts)
    return books


def earned(books: Books, law: Rules, conversion: str, model: str, dimension: str = "channel") -> dict[str | None, int]:
    """The amount by value under one model, all days added up."""
    place = 2 * law.models.index(model) + 1
    found: dict[str | None, int] = {}
    for cell, vector in books.cells.items():
        if (cell.conversion, cell.dimension) == (conversion, dimension):
            found[cell.value] = found.get(cell.value, 0) + numbers_of(vector, law.width)[place]
    return {value: amount for value, amount in found.items() if amount}


def transitions(books: Books, kind: str) -> dict[str, int]:
    """How often each transition was made, in words such as `email > direct`."""
    return {field.replace("\0", " > "): number for field, (number,) in table_of(books.counts, f"paths:{kind}").items()}


# --- stages -----------------------------------------------------------------------------


def test_a_stage_converts_when_the_deal_first_ever_entered_it():
    law = rules(conversion_stages=["demo"])
    facts = [
        call(ONE, "ann@acme.com"),
        deal(TWO, account="acme.com", amount=100, stage="new"),
        deal(THREE, "demo", stage="demo"),
        deal(FOUR, "back", stage="new"),
        deal("2026-03-01T10:00:00Z", "again", stage="demo"),
        call(FOUR, "bob@acme.com", channel="event"),
    ]

    books = books_of(law, facts)

    days = {cell.day for cell in books.cells if cell.conversion == "stage:demo"}
    assert days == {"2026-02-10"}
    assert earned(books, law, "stage:demo", "linear") == {"sales_outbound": 10_000}


def test_a_stage_has_a_lookback_of_its_own_and_one_of_all_stages():
    law = rules(conversion_stages=["demo", "proposal"], lookback={"stage": 3, "stages": {"demo": 30}})
    facts = [call(ONE, "ann@acme.com"), deal(TWO, account="acme.com", amount=1, stage="demo")]
    facts.append(deal(THREE, "on", stage="proposal"))

    books = books_of(law, facts)

    assert earned(books, law, "stage:demo", "linear") == {"sales_outbound": 100}
    assert earned(books, law, "stage:proposal", "linear") == {"unattributed": 100}


# --- roles ------------------------------------------------------------------------------


def contact(person: str, role: str | None, message: str = "contact", at: str = ONE, **fields: Any) -> RawFact:
    said = {"messageId": message, "timestamp": at, "person": person, "source": "crm", "role": role}
    return fact("contact-changes", **said, **fields)


ROLES = {"by_role": {"roles": {"champion": 3, "user": 1, "default": 0}}}


def test_the_role_of_the_deal_s_contact_comes_before_the_person_s_own():
    law = rules(models=ROLES)
    people = [{"person": "ann@acme.com", "role": "Champion"}, "bob@acme.com"]
    facts = [
        call(ONE, "ann@acme.com", channel="ann"),
        call(TWO, "bob@acme.com", channel="bob"),
        call(THREE, "cy@acme.com", channel="cy"),
        contact("ann@acme.com", "user"),
        contact("bob@acme.com", " USER "),
        deal(FOUR, account="acme.com", contacts=people, amount=4, stage="closed_won"),
    ]

    books = books_of(law, facts)

    assert earned(books, law, "won", "by_role") == {"ann": 300, "bob": 100}
    assert earned(books, law, "won", "linear") == {"ann": 134, "bob": 133, "cy": 133}


def test_a_contact_is_meant_by_any_id_merged_into_the_person():
    law = rules(models=ROLES)
    facts = [
        call(ONE, "ann@acme.com", channel="ann"),
        call(TWO, "bob@acme.com", channel="bob"),
        contact("bob@acme.com", "user"),
        identify(ONE, "ann@acme.com", userId="u1"),
        deal(FOUR, account="acme.com", contacts=[{"person": "u1", "role": "champion"}], amount=4, stage="closed_won"),
    ]

    assert earned(books_of(law, facts), law, "won", "by_role") == {"ann": 300, "bob": 100}


def test_of_several_roles_of_one_person_in_a_deal_the_first_holds():
    law = rules(models=ROLES)
    people = [{"person": "u1", "role": "champion"}, {"person": "ann@acme.com", "role": "nobody"}]
    facts = [
        call(ONE, "ann@acme.com", channel="ann"),
        identify(ONE, "ann@acme.com", userId="u1"),
        deal(FOUR, account="acme.com", contacts=people, amount=4, stage="closed_won"),
    ]

    assert earned(books_of(law, facts), law, "won", "by_role") == {"ann": 400}


def test_a_role_that_is_withdrawn_or_changed_restates_the_credits():
    law = rules(models=ROLES)
    facts = [
        call(ONE, "ann@acme.com", channel="ann"),
        contact("ann@acme.com", "champion"),
        contact("ann@acme.com", None, "later", TWO),
        deal(FOUR, account="acme.com", amount=4, stage="closed_won"),
    ]

    assert earned(books_of(law, facts[:2] + facts[3:]), law, "won", "by_role") == {"ann": 400}
    assert earned(books_of(law, facts), law, "won", "by_role") == {"unattributed": 400}


# --- participation ----------------------------------------------------------------------


def test_every_value_has_the_whole_once_however_many_touches_and_however_little_credit():
    law = rules()
    facts = [
        call(ONE, "ann@acme.com", channel="event", rep="Jo"),
        call(TWO, "ann@acme.com", channel="event"),
        call(THREE, "bob@acme.com", channel="email", rep="Jo"),
        deal(FOUR, account="acme.com", amount=90, stage="closed_won"),
        fact("billing", type="refund", dealId="D", messageId="r", timestamp=FOUR, amount="30"),
    ]

    books = books_of(law, facts)

    assert earned(books, law, "won", "participation") == {"event": 6000, "email": 6000}
    assert earned(books, law, "won", "participation", "rep") == {"Jo": 6000, None: 6000}
    assert earned(books, law, "won", "first_touch") == {"event": 6000}
    count = numbers_of(books.cells[Cell("won", "rep", "2026-02-20", None)], law.width)[
        2 * law.models.index("participation")
    ]
    assert count == 1_000_000


def test_what_no_touch_had_a_part_in_is_unattributed():
    law = rules()

    books = books_of(law, [deal(FOUR, account="acme.com", amount=90, stage="closed_won")])

    assert earned(books, law, "won", "participation") == {"unattributed": 9000}


# --- paths ------------------------------------------------------------------------------


def test_a_conversion_is_a_path_and_what_came_after_it_a_null_path():
    facts = [
        call(ONE, "ann@acme.com", channel="event"),
        call(TWO, "bob@acme.com", channel="email"),
        call(FOUR, "bob@acme.com", channel="direct"),
        deal(TWO, account="acme.com", amount=1),
        deal(THREE, "won", stage="closed_won"),
    ]

    books = books_of(rules(), facts)

    paths = {"event": 1, "event > email": 1, "email > (conversion)": 1, "direct": 1, "direct > (null)": 1}
    assert transitions(books, "opportunity") == transitions(books, "won") == paths


def test_a_null_path_reaches_back_from_its_latest_touch_by_the_lookback():
    law = rules(lookback={"won": 5, "opportunity": 100})
    facts = [call(ONE, "ann@acme.com", channel="a"), call(TWO, "ann@acme.com", channel="b")]
    facts.append(call(THREE, "ann@acme.com", channel="c"))

    books = books_of(law, facts)

    assert transitions(books, "won") == {"b": 1, "b > c": 1, "c > (null)": 1}
    assert transitions(books, "opportunity") == {"a": 1, "a > b": 1, "b > c": 1, "c > (null)": 1}


def test_a_visitor_who_belongs_to_nobody_is_a_null_path_to_a_lead_until_somebody_is_named():
    visits = [hit(ONE, query=AD), hit(TWO), hit(THREE, query=NEWS), hit(FOUR, "v2", query=AD)]

    nobody = books_of(rules(), visits)
    somebody = books_of(rules(), [*visits, identify(FOUR, "ann@acme.com")])

    assert transitions(nobody, "lead") == {
        "paid_search": 2,
        "paid_search > email": 1,
        "email > (null)": 1,
        "paid_search > (null)": 1,
    }
    assert transitions(somebody, "lead") == {
        "paid_search": 2,
        "paid_search > direct": 1,
        "direct > email": 1,
        "email > (conversion)": 1,
        "paid_search > (null)": 1,
    }


def test_a_form_that_names_nobody_is_on_the_path_of_its_visitor_unless_another_system_says_whose_it_is():
    visit = hit(ONE, query=AD)
    said = {"anonymousId": "v1", "timestamp": TWO, "properties": {"externalId": "crm-1"}}
    form = fact("form-fills", type="track", event="Signed Up", messageId="form", **said)
    recorded = fact("touches", touchId="crm-1", timestamp=THREE, person="ann@acme.com", kind="form")

    assert transitions(books_of(rules(), [visit, form]), "lead") == {
        "paid_search": 1,
        "paid_search > direct": 1,
        "direct > (null)": 1,
    }
    assert transitions(books_of(rules(), [visit, form, recorded]), "lead") == {
        "paid_search": 1,
        "paid_search > (null)": 1,
        "direct": 1,
        "direct > (conversion)": 1,
    }


def test_paths_of_order_two_remember_two_channels():
    law = rules(markov_order=2)
    facts = [call(at, "ann@acme.com", channel=channel) for at, channel in ((ONE, "a"), (TWO, "b"), (THREE, "c"))]

    found = transitions(books_of(law, facts), "won")

    assert found == {"a": 1, "a > b": 1, "a > b > c": 1, "b > c > (null)": 1}


def test_a_change_of_rules_is_data_that_survives_being_written_down():
    law = rules(models=ROLES, team_split={"sales": 1.5})
    written = msgspec.json.encode(law.settings)

    assert parse_settings(msgspec.json.decode(written)) == law.settings
