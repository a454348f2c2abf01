"""Bots: what the list, storms and verdicts leave out, and what a later verdict restores."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from models.bots import STORM_HITS, Aside, is_storm
from models.decoding import decode
from models.errors import BadInput
from models.hits import Hit
from models.recompute import Books, recompute
from models.settings import Settings
from models.times import MINUTE, to_text
from tests.test_lanes import compare, form_fill
from tests.test_recompute import call, fact, hit, identify
from tests.worlds import BEGIN, RawFact, rules

GOOGLEBOT = {"userAgent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
ONE, TWO, THREE = (f"2026-02-0{day}T10:00:00Z" for day in (1, 2, 3))


def verdict(bot: bool, at: str = THREE, **fields: Any) -> RawFact:
    ids = {"messageId": f"verdict {at}", "timestamp": at, "anonymousId": "v1"}
    return fact("identities", type="bot", bot=bot, **ids, **fields)


def books_of(facts: Iterable[RawFact]) -> Books:
    """The books of the facts; the lanes come to the same in any order."""
    facts = list(facts)
    for seed in range(6):
        shuffled = facts.copy()
        random.Random(seed).shuffle(shuffled)
        compare(shuffled, 0, seed)
    return recompute(facts, rules())


def touches(books: Books) -> list[str]:
    return [touch.id for journey in books.journeys.values() for _, touch in journey]


def known_visit() -> list[RawFact]:
    return [hit(ONE), form_fill(TWO, "v1", "ann@acme.com")]


def test_a_verdict_withdraws_hits_form_fills_leads_and_all():
    books = books_of([*known_visit(), verdict(True)])

    assert not books.journeys and not books.leads and not books.cells


def test_people_known_by_other_facts_stay():
    books = books_of([*known_visit(), call(TWO, "ann@acme.com"), verdict(True)])

    assert touches(books) == [f"call {TWO}"]
    assert list(books.leads) == ["ann@acme.com"]


def test_a_later_verdict_restores_what_an_earlier_one_withdrew():
    restored = books_of([*known_visit(), verdict(True, TWO), verdict(False)])

    assert restored.cells == books_of(known_visit()).cells


def test_a_verdict_of_some_messages_or_some_time_leaves_out_no_others():
    by_id = books_of([*known_visit(), verdict(True, messageIds=["form"])])
    by_time = books_of([*known_visit(), identify(TWO, "ann@acme.com"), verdict(True, **{"from": ONE, "to": ONE})])

    assert not by_id.leads
    assert touches(by_time) == ["form"]


def anybodys(bot: bool, *messages: str, at: str = THREE) -> RawFact:
    ids = {"messageId": f"anybody's {at}", "timestamp": at, "messageIds": messages}
    return fact("identities", type="bot", bot=bot, **ids)


def test_a_verdict_on_messages_finds_their_visitor_whichever_comes_first():
    uuid = "0b8f3c1e-5a1f-4f6c-9d3e-2f1a7c9b1d11"
    page = fact("page-views", messageId=uuid, timestamp=THREE, anonymousId="v1")
    facts = [*known_visit(), page, hit(TWO, "v2"), identify(TWO, "bob@acme.com", "v2")]

    assert sorted(touches(books_of(facts))) == [uuid, "form", f"hit {ONE}", f"hit {TWO}"]
    assert sorted(touches(books_of([*facts, anybodys(True, uuid, f"hit {ONE}")]))) == ["form", f"hit {TWO}"]
    assert list(books_of([*facts, anybodys(True, "form", "identify")]).leads) == []
    again = [*facts, anybodys(True, uuid), anybodys(False, uuid, at="2026-02-04T10:00:00Z")]
    assert books_of(again).cells == books_of(facts).cells


def test_of_two_verdicts_on_messages_with_one_id_the_smaller_stands():
    facts = [*known_visit(), hit(THREE), anybodys(True, f"hit {THREE}"), anybodys(True, f"hit {ONE}")]

    assert touches(books_of(facts)) == ["form", f"hit {THREE}"]


def test_hits_are_left_out_before_sessions_are_cut():
    minutes = [to_text(BEGIN + number * 20 * MINUTE) for number in range(3)]
    facts = [*(hit(at) for at in minutes), identify(minutes[0], "ann@acme.com")]

    assert len(touches(books_of(facts))) == 1
    assert len(touches(books_of([*facts, verdict(True, messageIds=[f"hit {minutes[1]}"])]))) == 2


def test_a_known_bots_user_agent_leaves_a_message_out_until_a_verdict_restores_it():
    listed = fact("page-views", messageId="listed", timestamp=ONE, anonymousId="v1", context=GOOGLEBOT)
    facts = [listed, identify(ONE, "ann@acme.com")]

    assert touches(books_of(facts)) == []
    assert touches(books_of([*facts, verdict(False)])) == ["listed"]


def test_the_judgement_of_when_a_message_arrived_is_not_looked_at_again():
    arrived = fact("page-views", messageId="arrived", timestamp=ONE, anonymousId="v1", context=GOOGLEBOT, bot=False)

    assert touches(books_of([arrived, identify(ONE, "ann@acme.com")])) == ["arrived"]


def storm(hits: int, span: int) -> list[RawFact]:
    instants = [to_text(BEGIN + number * span // (hits - 1)) for number in range(hits)]
    return [hit(at) for at in instants]


@pytest.mark.parametrize(
    ("hits", "span", "storms"),
    [(STORM_HITS, 0, False), (STORM_HITS + 1, MINUTE - 1, True), (STORM_HITS + 1, MINUTE, False)],
)
def test_more_than_300_hits_within_a_minute_are_a_storm(hits: int, span: int, storms: bool):
    assert is_storm([number * span // (hits - 1) for number in range(hits)]) == storms


def test_a_storm_makes_a_bot_of_all_hits_and_of_whom_they_name():
    facts = [*storm(STORM_HITS + 1, MINUTE - 1), *known_visit()]

    assert not books_of(facts).leads
    assert len(touches(books_of(facts[1:]))) == 3


def test_a_verdict_holds_over_a_storm():
    facts = [*storm(STORM_HITS + 1, MINUTE - 1), *known_visit()]

    assert touches(books_of([*facts, verdict(False, **{"from": ONE})])) == [f"hit {ONE}", "form"]


def test_hits_left_out_are_kept_by_ten_minutes():
    hits = [Hit(number * MINUTE, f"h{number}", None, "/", None, True) for number in range(25)]
    aside = Aside()
    for each in hits:
        aside.add(each)
    parts = aside.changes()
    again = Aside()
    for value in parts.values():
        again.load(value or b"")

    assert len(parts) == 3
    assert again.hits == aside.hits
    aside.remove(hits[24])
    assert list(aside.changes()) == ["b:2"]


def test_a_verdict_says_yes_or_no_and_of_whom():
    for missing in ("bot", "anonymousId"):
        body = {"type": "bot", "messageId": "m", "timestamp": ONE, "anonymousId": "v1", "bot": True}
        del body[missing]
        topic, value, recorded = fact("identities", **body)
        with pytest.raises(BadInput, match="bot|anonymousId"):
            decode(topic, value, recorded, Settings())
