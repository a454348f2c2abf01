"""What becomes of an alert: tried on schedule, in order, until it is delivered or a dead letter; and its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models.alert_texts import digest_mail, firing_after, headline, lines, mail, posted, slack_text
from models.alerts import AccountOf, Alert, Cause, Cooled, OpenDeal, sample_alert
from models.destinations import Alertmanager, Destination, Email, Slack, Webhook
from models.dispatch import (
    Abandon,
    Answer,
    Delivery,
    Firing,
    Item,
    Send,
    Standing,
    Wait,
    decide,
    parse_retry_after,
    settle,
    wait_after,
)
from models.times import DAY, HOUR, MINUTE, SECOND, parse_instant, to_text

RULES = Delivery()
HOOK = Webhook("https://example.com")
SLACK = Slack("https://example.com")
MAIL = Email("h", "a@b.c", ("d@e.f",))
OPS = Alertmanager("http://ops")
FAILED = Answer(False, 500, "HTTP 500")


def item(n: int = 0, **changes: Any) -> Item:
    return replace(Item(f"al_{n}", b"{}", "r", 0, 0), **changes)


# --- the schedule -----------------------------------------------------------------------


def attempts(answer: Answer, chance: float = 0.5) -> tuple[list[int], str]:
    """When an alert is tried that is always answered so, and what came of it."""
    standing, now, tried = Standing(), 1_000 * DAY, []
    while True:
        assert decide(HOOK, standing, [item()], now, RULES, off=False) == Send([item()])
        tried.append(now - 1_000 * DAY)
        settled = settle(standing, [item()], answer, now, RULES, chance)
        if settled.outcome != "retry":
            return tried, settled.outcome
        assert settled.due is not None
        assert decide(HOOK, settled.standing, [item()], settled.due - 1, RULES, off=False) == Wait(settled.due)
        standing, now = settled.standing, settled.due


def test_an_alert_is_tried_after_5_s_30_s_2_10_30_min_then_hourly_for_a_day() -> None:
    tried, outcome = attempts(FAILED)

    waits = [after - before for before, after in zip(tried, tried[1:], strict=False)]
    assert waits[:5] == [5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE]
    assert set(waits[5:]) == {HOUR}
    assert DAY - HOUR < tried[-1] <= DAY
    assert outcome == "dead"


@given(st.floats(0, 1))
def test_the_hourly_tries_are_spread_by_a_fifth_and_never_beyond_a_day(chance: float) -> None:
    tried, outcome = attempts(FAILED, chance)

    assert all(
        0.8 * HOUR - 1 <= after - before <= 1.2 * HOUR + 1 for before, after in zip(tried[5:], tried[6:], strict=False)
    )
    assert (tried[-1] <= DAY, outcome) == (True, "dead")


@pytest.mark.parametrize(
    ("asked", "wait"), [(None, 30 * SECOND), (20, 20 * SECOND), (0, 5 * SECOND), (7200, HOUR), (90, 90 * SECOND)]
)
def test_retry_after_is_obeyed_up_to_an_hour(asked: int | None, wait: int) -> None:
    assert wait_after(2, None if asked is None else asked * SECOND, RULES, 0.5) == wait


@pytest.mark.parametrize(
    ("header", "micros"),
    [
        ("120", 120 * SECOND),
        ("99999999999999", HOUR),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60 * SECOND),
        ("Wed, 21 Oct 2020 07:28:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, micros: int | None) -> None:
    assert parse_retry_after(header, parse_instant("2026-10-21T07:27:00Z", "")) == micros


def test_410_turns_off_and_what_waits_is_given_up_after_a_day() -> None:
    settled = settle(Standing(), [item()], Answer(False, 410), HOUR, RULES, 0.5)

    assert (settled.outcome, settled.done) == ("off", 0)
    assert decide(HOOK, settled.standing, [item()], DAY - 1, RULES, off=True) == Wait(DAY)
    assert decide(HOOK, settled.standing, [item()], DAY, RULES, off=True) == Abandon([item()])
    assert decide(HOOK, settled.standing, [item()], 2 * HOUR, RULES, off=False) == Send([item()])


# --- what makes one message -------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "items", "together"),
    [
        (SLACK, [item(1), item(2)], 1),
        (SLACK, [item(1, quiet=True), item(2, quiet=True), item(3)], 2),
        (MAIL, [item(1, quiet=True), item(2, quiet=True), item(3, quiet=True, not_before=9)], 2),
        (HOOK, [item(1, quiet=True), item(2, quiet=True)], 1),
        (OPS, [item(1, quiet=True), item(2, quiet=True)], 1),
        (MAIL, [item(1, digest="2026-04-03"), item(2, digest="2026-04-03"), item(3, digest="2026-04-04")], 2),
        (HOOK, [item(1, digest="2026-04-03"), item(2, digest="2026-04-03")], 1),
        (SLACK, [item(n, digest="2026-04-03") for n in range(100)], 40),
    ],
)
def test_quiet_hours_and_digests_make_one_message(destination: Destination, items: list[Item], together: int) -> None:
    decision = decide(destination, Standing(), items, 5, RULES, off=False)

    assert decision == Send(items[:together])


def test_a_message_that_is_tried_again_stays_the_same_when_more_came() -> None:
    first = settle(Standing(), [item(1, quiet=True)], FAILED, 0, RULES, 0.5)

    later = decide(SLACK, first.standing, [item(1, quiet=True), item(2, quiet=True)], DAY, RULES, off=False)
    assert later == Send([item(1, quiet=True)])


def test_a_message_after_a_delivered_one_begins_anew() -> None:
    failed = settle(Standing(), [item(1)], FAILED, 0, RULES, 0.5)
    done = settle(failed.standing, [item(1)], Answer(True, 200), 5 * SECOND, RULES, 0.5)

    assert (done.outcome, done.done, done.due, done.standing) == ("delivered", 1, None, Standing())


def test_nothing_is_sent_before_its_time() -> None:
    assert decide(SLACK, Standing(), [item(not_before=7)], 5, RULES, off=False) == Wait(7)
    assert decide(SLACK, Standing(), [], 5, RULES, off=False) == Wait(None)


# --- words ------------------------------------------------------------------------------


def alert(**changes: Any) -> Alert:
    return replace(sample_alert("al_1", "2026-04-03T12:00:00Z"), **{"test": False, **changes})


AD = Cause(
    "t", "web_session", "2026-04-03T12:00:00Z", "marketing", "retargeting", None, "spring", None, "ann@x.io", 9.0, 0.45
)
DEMO = Cause("u", "demo", "2026-03-01T12:00:00Z", "sales", rep="Grace")
STALLED = OpenDeal("D1", "Big", "proposal", None, 40, 12, 30, 1234500, "USD", "Grace")
STORY = alert(
    account=AccountOf("acme.com", "Acme <& Sons>", "Grace"),
    causes=(AD,),
    cooled=Cooled("al_0", "2026-03-20T00:00:00Z", (DEMO,), "Bo", (STALLED,)),
    deals=(STALLED,),
)


def test_slack_gets_the_whole_story_in_its_text() -> None:
    assert slack_text([STORY], "https://t.example/").splitlines() == [
        "Acme &lt;&amp; Sons&gt; (acme.com) is warm again: score 30 (before 18, threshold 25)",
        'Strongest cause: web session via retargeting campaign "spring" by ann@x.io on 2026-04-03 (45% of the rise)',
        "It had cooled on 2026-03-20: last touch demo with Grace on 2026-03-01; "
        '"Big" 12,345.00 USD in stage proposal for 40 days (usual: 12); owner then Bo',
        'Open deal: "Big" 12,345.00 USD in stage proposal for 40 days (usual: 12)',
        "Owner: Grace",
        "<https://t.example/?account=acme.com|Open in Touchline>",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transition": "warming", "rewarmed": False}, "is warming up: score 30"),
        ({"transition": "cooling", "rewarmed": False}, "is cooling: score 30"),
        ({"transition": "cooled", "rewarmed": False}, "has gone cold: score 30"),
        ({"test": True}, "[test] Touchline test"),
    ],
)
def test_the_headline_says_what_happened(changes: dict[str, Any], words: str) -> None:
    assert words in headline(alert(**changes))


def test_what_cooled_is_told_by_its_latest_touch() -> None:
    cooled = alert(transition="cooled", causes=(), cooled=None, last_touches=(DEMO, AD))

    assert lines(cooled)[1].startswith("Last touch: web session")


@given(st.text(max_size=50), st.text(max_size=50))
def test_slack_never_reads_markup_in_what_comes_from_outside(name: str, campaign: str) -> None:
    hostile = replace(STORY, account=AccountOf("a", f"<!channel>{name}"), causes=(replace(AD, campaign=campaign),))

    text = slack_text([hostile], "")
    assert "<" not in text and ">" not in text
    assert len(text.splitlines()) == 5


def test_a_mail_is_known_by_its_alert_and_a_digest_by_route_and_day() -> None:
    one, other = mail([STORY], ""), mail([STORY, alert(alert_id="al_2")], "")
    digest = digest_mail([STORY], "", "r", "2026-04-03", 0)

    assert one.identity == "al_1"
    assert other.identity not in (one.identity, mail([alert(alert_id="al_2")], "").identity)
    assert digest.subject == "r: 1 alert, 2026-04-03"
    assert digest.identity == digest_mail([alert()], "", "r", "2026-04-03", 0).identity
    assert len({digest_mail([STORY], "", r, d, p).identity for r in "ab" for d in "cd" for p in (0, 1)}) == 8


# --- Alertmanager -----------------------------------------------------------------------


def names(firing: tuple[Firing, ...]) -> list[str]:
    return [each.name for each in firing]


def test_an_account_fires_warm_from_warmed_until_cold_and_cooling_while_it_cools() -> None:
    told: tuple[Firing, ...] = ()
    history = []
    for transition in ("warming", "warmed", "cooling", "warming", "warmed", "cooling", "cooled"):
        told = firing_after(told, alert(transition=transition), "", matched=True)
        history.append(names(told))

    warm, cooling = "AccountWarm", "AccountCooling"
    assert history == [[], [warm], [warm, cooling], [warm], [warm], [warm, cooling], []]


def test_what_no_route_matched_only_resolves() -> None:
    fires = firing_after((), STORY, "", matched=True)

    assert names(firing_after((), STORY, "", matched=False)) == []
    assert names(firing_after(fires, alert(transition="cooling"), "", matched=False)) == ["AccountWarm"]
    assert names(firing_after(fires, alert(transition="cooled"), "", matched=False)) == []


def test_what_fires_ends_in_five_minutes_and_what_ended_at_its_instant() -> None:
    fires = firing_after((), STORY, "", matched=True)
    (first,) = posted((), fires, "", HOUR)
    (ended,) = posted(fires, (), "2026-05-01T00:00:00Z", HOUR)

    assert first["labels"] == {"alertname": "AccountWarm", "account": "acme.com", "severity": "info"}
    assert first["annotations"]["summary"] == headline(STORY)
    assert (first["startsAt"], first["endsAt"]) == (STORY.at, to_text(HOUR + 5 * MINUTE))
    assert (ended["labels"], ended["endsAt"]) == (first["labels"], "2026-05-01T00:00:00Z")


def test_what_fires_is_sent_again_each_minute_even_while_the_next_alert_waits() -> None:
    fires = firing_after((), STORY, "", matched=True)
    told = settle(Standing(), [item()], Answer(True, 200), 0, RULES, 0.5, fires)
    failed = settle(told.standing, [item(1)], FAILED, 40 * SECOND, RULES, 0.5)

    assert told.due == MINUTE
    assert decide(OPS, told.standing, [], MINUTE, RULES, off=False) == Send(())
    assert failed.due == 45 * SECOND
    waits = replace(failed.standing, retry_at=DAY)
    assert decide(OPS, waits, [item(1)], MINUTE - 1, RULES, off=False) == Wait(MINUTE)
    assert decide(OPS, waits, [item(1)], MINUTE, RULES, off=False) == Send(())
