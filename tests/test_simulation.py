"""The books balance whatever happens: the lanes under simulation, against the batch recomputation.

TOUCHLINE_EXAMPLES says how many worlds are tried (2,000 where it says nothing), TOUCHLINE_SEED
with which to begin. A failure is made as small as it gets, and printed as code.
"""

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest

from models.reports import unpack_messages
from models.times import DAY, to_text
from streams import reading
from streams.caches import Cache
from streams.envelopes import unpack_envelope
from streams.ownership import Ownership
from streams.publishing import Publisher
from streams.tables import Tables
from tests.simulation import Plan, Simulation, books_of, difference, rules_for, simulate, smallest, told
from tests.worlds import BEGIN, RECORDED, VARIANTS, RawFact, world

EXAMPLES = int(os.environ.get("TOUCHLINE_EXAMPLES", "2000"))
FIRST_SEED = int(os.environ.get("TOUCHLINE_SEED", "0"))
SIZES = (3, 6, 12, 20)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Workers that are fenced again and again say so; here nobody reads it."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def plan(seed: int, variant: int = 0, size: int | None = None) -> Plan:
    """The example of a seed."""
    rng = random.Random(seed)
    return Plan(seed, world(rng, size or rng.choice(SIZES)), variant)


def balances(plan: Plan) -> None:
    """Fail with the smallest like example when the books of this one do not balance."""
    if difference(plan):
        pytest.fail(told(smallest(plan, difference)), pytrace=False)


# --- the law --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(VARIANTS))
def test_totals_do_not_depend_on_order_duplicates_crashes_zombies_or_rebalances(variant: int) -> None:
    for seed in range(FIRST_SEED + variant, FIRST_SEED + EXAMPLES, VARIANTS):
        balances(plan(seed, variant))


def test_a_few_worlds_balance_under_everything_that_can_go_wrong() -> None:
    for seed in range(1_000_000, 1_000_040):
        balances(plan(seed, seed % VARIANTS))


def test_large_worlds_balance() -> None:
    for seed in range(2_000_000, 2_000_005):
        balances(plan(seed, seed % VARIANTS, size=150))


@pytest.mark.parametrize("shuffles", [3])
def test_the_same_facts_come_to_the_same_totals_in_any_order(shuffles: int) -> None:
    for seed in range(10):
        facts = plan(seed).facts
        runs = [simulate(Plan(1000 * seed + shuffle, facts)).books().settled() for shuffle in range(shuffles)]

        assert all(run == runs[0] for run in runs)


def test_a_run_is_decided_by_its_seed_alone() -> None:
    first, second = (simulate(plan(5)) for _ in range(2))

    assert first.steps == second.steps
    assert first.store.keys == second.store.keys
    assert first.chance.crashed_at == second.chance.crashed_at


def test_workers_die_at_every_point_of_a_batch() -> None:
    points = {
        "rebalance", "before acquire", "after acquire", "read", "before load", "after load",
        "before commit", "after commit", "send", "publish", "published",
    }  # fmt: skip
    crashed_at: Counter[str] = Counter()
    for seed in range(400):
        crashed_at += simulate(plan(seed)).chance.crashed_at
        if crashed_at.keys() >= points:
            return

    pytest.fail(f"only at {sorted(crashed_at)}")


# --- what is refused --------------------------------------------------------------------------


def test_every_record_that_is_no_fact_is_in_the_dead_letters() -> None:
    junk = [b"", b"{", b"null", b'"\xff"', b'{"messageId":"x","timestamp":"soon","anonymousId":"v1"}']
    for seed in range(15):
        facts = [*plan(seed).facts, *(("page-views", value, RECORDED) for value in junk)]

        after = simulate(Plan(seed, facts))

        kept = {letter["original"] for letter in after.letters()}
        assert kept >= {"", "{", "null", junk[-1].decode()}
        assert any("originalBase64" in letter for letter in after.letters())


def test_a_fact_that_loses_to_another_in_a_partition_not_its_own_is_told_by_where_it_lies() -> None:
    facts = [_touch("t1", at, kind) for at, kind in ((BEGIN, "call"), (BEGIN + DAY, "demo"), (BEGIN + DAY, "chat"))]
    for seed in range(40):
        after = simulate(Plan(seed, facts))

        letters = after.letters()
        assert len({letter["original"] for letter in letters}) >= 2
        for letter in letters:
            record = after.log.read(letter["topic"], letter["partition"], letter["offset"], 1)[0]
            assert record.value.decode() == letter["original"]


# --- un-merge -----------------------------------------------------------------------------------

END = BEGIN + 150 * DAY


def _touch(touch_id: str, at: int, kind: str = "call", person: str = "ann@acme.com") -> RawFact:
    body = {"touchId": touch_id, "timestamp": to_text(at), "person": person, "kind": kind}
    return "touches", json.dumps(body).encode(), RECORDED


def _fact(topic: str, **body: Any) -> RawFact:
    return topic, json.dumps(body).encode(), RECORDED


def _alias_and_unlink() -> list[RawFact]:
    ids = {"userId": "ann@acme.com", "previousId": "cy@gmail.com"}
    return [
        _fact("identities", type="alias", messageId="merge", timestamp=to_text(END), **ids),
        _fact("identities", type="unlink", messageId="split", unlinks="merge", timestamp=to_text(END), **ids),
    ]


def _contact_and_null() -> list[RawFact]:
    said = {"person": "cy@gmail.com", "source": "another"}
    return [
        _fact("contact-changes", messageId="merge", timestamp=to_text(END), account="acme.com", **said),
        _fact("contact-changes", messageId="split", timestamp=to_text(END + 1), account=None, **said),
    ]


def _merger_and_null() -> list[RawFact]:
    return [
        _fact("account-changes", messageId="merge", timestamp=to_text(END), account="cy@gmail.com", mergedInto="C1"),
        _fact(
            "account-changes", messageId="split", timestamp=to_text(END + 1), account="cy@gmail.com", mergedInto=None
        ),
    ]


@pytest.mark.parametrize("merge_and_split", [_alias_and_unlink, _contact_and_null, _merger_and_null])
def test_a_merger_that_is_withdrawn_leaves_no_trace_in_the_totals(
    merge_and_split: Callable[[], list[RawFact]],
) -> None:
    for seed in range(25):
        before = [*plan(seed).facts, *_two_people()]
        both = [*before, *merge_and_split()]

        assert not difference(Plan(seed, both), expected=before)


def test_while_it_stands_the_same_merger_moves_totals() -> None:
    law = rules_for(0, 2)

    for merge_and_split in (_alias_and_unlink, _contact_and_null):
        assert books_of([*_two_people(), merge_and_split()[0]], law) != books_of(_two_people(), law)


def _two_people() -> list[RawFact]:
    """Two who are known for a touch each, and a deal of the second."""
    return [
        _touch("k1", BEGIN, "webinar", "ann@acme.com"),
        _touch("k2", BEGIN + DAY, "call", "cy@gmail.com"),
        _deal("cy@gmail.com"),
    ]


def _deal(contact: str) -> RawFact:
    return _fact(
        "deal-changes",
        dealId="d9",
        messageId="d9",
        timestamp=to_text(BEGIN + 2 * DAY),
        contacts=[contact],
        stage="closed_won",
        amount=100,
    )


# --- the simulation finds what is broken -----------------------------------------------------------


def _open_whatever_comes(value: bytes, run: int, seen: dict[str, int]) -> list[Any]:
    return unpack_messages(unpack_envelope(value).messages)


async def _publish_backwards(publisher: Publisher, entries: list[bytes]) -> int:
    return await _publish(publisher, entries[::-1])


async def _release_but_keep_the_tables(ownership: Ownership, partitions: Sequence[int]) -> None:
    kept = dict(ownership.tables)
    await _release(ownership, partitions)
    ownership.tables.update(kept)


def _keep_strays(items: list[Any], partition: int, partitions: int) -> tuple[list[Any], list[Any]]:
    return items, []


_publish, _release = Publisher.publish, Ownership.release
_MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "messages are taken however often they come": (reading, "opened", _open_whatever_comes),
    "messages are published in the wrong order": (Publisher, "publish", _publish_backwards),
    "what is to be published is not committed": (Tables, "put_outbox", lambda tables, entries: None),
    "a cancelled batch stays in memory": (Ownership, "release", _release_but_keep_the_tables),
    "another owner's commits are not read": (Cache, "clear", lambda cache: None),
    "facts are kept where they are read": (reading, "_split", _keep_strays),
}


def _is_found(change: Callable[[Simulation], None] = lambda simulation: None) -> bool:
    """Does one of some examples fail?"""
    return any(_fails(plan(seed), change) for seed in range(1500))


def _fails(plan: Plan, change: Callable[[Simulation], None]) -> bool:
    try:
        after = simulate(plan, change)
    except AssertionError:
        return True
    return after.books().settled() != books_of(plan.facts, after.rules)


@pytest.mark.slow
@pytest.mark.parametrize("broken", _MUTATIONS)
def test_it_is_noticed_when(broken: str) -> None:
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(*_MUTATIONS[broken]))

        assert _is_found()


@pytest.mark.slow
def test_it_is_noticed_when_a_former_owner_can_commit() -> None:
    assert _is_found(lambda simulation: setattr(simulation.store, "checks_epoch", False))


# --- bugs that were found, kept away ----------------------------------------------------------------


def _hit(number: int, at: str, query: str) -> RawFact:
    url = f"https://www.site.com/{number}{query}"
    return _fact(
        "page-views",
        type="page",
        messageId=f"h{number}",
        anonymousId="v1",
        timestamp=f"2026-01-{at}",
        context={"page": {"url": url}},
    )


def _named(at: str) -> RawFact:
    return _fact(
        "identities",
        type="identify",
        messageId="who",
        anonymousId="v1",
        userId="ann@acme.com",
        timestamp=f"2026-01-{at}",
    )


def test_who_became_known_before_a_visit_moves_to_an_earlier_visit_that_comes_late() -> None:
    visits = [_hit(1, "05T01:00", ""), _hit(2, "06T01:10", "?utm_source=news"), _hit(3, "06T00:20", "?gclid=1")]
    for seed in range(30):
        balances(Plan(seed, [*visits, _named("06T00:45")]))


def test_a_form_fill_takes_the_source_of_a_visit_that_comes_late() -> None:
    form = {"event": "Signed Up", "properties": {"email": "ann@acme.com"}, "anonymousId": "v1"}
    filled = _fact("form-fills", type="track", messageId="f1", timestamp="2026-01-06T00:30", **form)
    for seed in range(30):
        balances(Plan(seed, [_hit(1, "06T00:10", "?utm_source=news&utm_medium=email"), filled]))


def test_a_deal_that_waits_for_a_rate_still_waits_when_it_has_moved() -> None:
    waits = {"dealId": "d1", "amount": 5, "currency": "CHF"}
    moves = {"dealId": "d1", "account": "acme.com"}
    changes = [
        _fact("deal-changes", messageId=f"m{number}", timestamp=f"2026-01-0{number}", **body)
        for number, body in enumerate((waits, moves), start=1)
    ]
    for seed in range(30):
        balances(Plan(seed, changes))


def test_a_verdict_on_messages_finds_a_page_view_that_reached_another_partition() -> None:
    verdict = {"type": "bot", "messageId": "verdict", "timestamp": "2026-01-05T00:00:00Z", "bot": True}
    facts = [_fact("identities", **verdict, messageIds=["h1"]), _hit(1, "06T01:40", "?utm_source=news")]
    for seed in range(120):
        balances(Plan(seed, facts, seed % VARIANTS))
