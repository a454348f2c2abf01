"""When an account's alerts are sent and what they say; incremental warmth is that of the whole journey."""

import json
import random
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import gauge, received
from models.accounts import Account
from models.alerting import finished
from models.alerts import Alert, encode
from models.deals import Deal
from models.decoding import decode
from models.facts import ACCOUNT_CHANGES
from models.leads import Lead
from models.reports import Parts, Report, Wake, pack, tag_of
from models.times import DAY, HOUR, MINUTE, parse_instant, to_text
from models.totals import Totals
from models.touches import Touch
from models.usual import Usual, usuals_of
from models.warmth import Touched, history_of
from tests.worlds import rules

RULES = rules(0)
T0 = parse_instant("2026-03-02T09:00:00Z", "t0")
USUALS = {("default", "proposal"): Usual(10, 20)}
PEOPLE = ("ann@acme.com", "bob@acme.com", "cy@acme.com")


class Lane:
    """The account acme.com as its lane has it; every step tells what is sent."""

    def __init__(self, parts: Parts | None = None) -> None:
        self.account = Account("acme.com", {} if parts is None else parts, RULES)
        self._known: set[str] = set()

    def hears(self, *touches: Touch, person: str = "ann@acme.com", gone: bool = False, at: int = 0) -> list[Alert]:
        """A report of a person's touches, recorded when the last of them happened (or at `at`)."""
        changes: dict[str, bytes | None] = {f"t:{each.id}": None if gone else pack(each) for each in touches}
        if person not in self._known:
            changes["k:"] = pack(Lead(T0, person, False, (person,)))
            self._known.add(person)
        return self._take(Report("account:acme.com", tag_of(person), changes, at or max(each.at for each in touches)))

    def hears_of_deal(self, deal: Deal, at: int) -> list[Alert]:
        """A report of a deal."""
        return self._take(Report("account:acme.com", tag_of(deal.id), {f"d:{deal.id}": pack(deal)}, at))

    def hears_change(self, at: int, **body: Any) -> list[Alert]:
        """A fact about the account itself."""
        raw = {"account": "acme.com", "messageId": f"m{at}", "timestamp": to_text(at), **body}
        self.account.hear(at)
        self.account.apply(ACCOUNT_CHANGES, decode(ACCOUNT_CHANGES, json.dumps(raw).encode(), at, RULES.settings))
        return self.flush()

    def looks(self, clock: int) -> list[Alert]:
        """It is `clock` now."""
        self.account.receive(Wake("account:acme.com", clock))
        return self.flush()

    def _take(self, report: Report) -> list[Alert]:
        self.account.hear(report.recorded_at)
        self.account.receive(report)
        return self.flush()

    def flush(self) -> list[Alert]:
        """Apply what was heard."""
        totals = self.totals()
        return [finished(draft, USUALS) for draft in totals.alerts]

    def totals(self) -> Totals:
        """Apply what was heard; what it adds to the totals."""
        totals = Totals()
        self.account.flush(totals)
        return totals

    def again(self) -> "Lane":
        """The same account, loaded from what is kept of it."""
        lane = Lane(dict(self.account.parts))
        lane._known = self._known
        return lane


def touch(days: float, kind: str, **more: Any) -> Touch:
    at = T0 + round(days * DAY)
    made = {"team": "sales", "channel": "sales_outbound", **more}
    return Touch(at=at, id=f"{kind}{days}", kind=kind, **made)


def names(alerts: list[Alert]) -> list[str]:
    return [alert.transition for alert in alerts]


# --- when ---------------------------------------------------------------------------------


def test_a_transition_is_alerted_when_it_happens_and_once() -> None:
    lane = Lane()

    assert names(lane.hears(touch(0, "demo"))) == ["warming"]
    assert lane.again().hears(touch(0.1, "call")) == []
    assert names(lane.again().hears(touch(0.2, "demo"))) == []


def test_a_backfill_alerts_nobody_nor_does_what_it_revealed() -> None:
    lane = Lane()

    assert lane.hears(touch(0, "demo"), touch(0, "meeting"), touch(1, "demo"), at=T0 + 3 * DAY) == []
    assert lane.hears(touch(3, "call")) == []
    assert names(lane.looks(T0 + 60 * DAY)) == ["cooling", "cooled"]


def test_a_transition_of_a_day_ago_is_alerted_as_late_an_older_one_is_not() -> None:
    for late, expected in ((MINUTE, [False]), (HOUR + 1, [True]), (DAY, [True]), (DAY + 1, [])):
        sent = Lane().hears(touch(0, "demo"), at=T0 + late)

        assert [alert.late for alert in sent] == expected


def test_what_was_foreseen_is_alerted_whenever_its_time_is_found_passed() -> None:
    lane = Lane()
    lane.hears(touch(0, "demo"), touch(0, "meeting"), touch(0, "form_fill"))

    [cooling, cooled] = lane.again().looks(T0 + 300 * DAY)

    assert (cooling.transition, cooled.transition) == ("cooling", "cooled")
    assert cooling.at == to_text(T0 + 14 * DAY + 1)
    assert (cooled.resolves, cooled.late) == (cooling.alert_id, False)


def test_what_was_foreseen_but_prevented_in_time_is_not_alerted() -> None:
    lane = Lane()
    lane.hears(touch(0, "demo"), touch(0, "meeting"), touch(0, "form_fill"))

    assert lane.hears(touch(13, "demo"), at=T0 + 15 * DAY) == []


def test_a_future_touch_warms_when_its_time_has_come() -> None:
    lane = Lane()

    assert lane.hears(touch(0.5, "demo"), at=T0) == []
    assert lane.looks(T0 + DAY // 2 - 1) == []
    assert names(lane.again().looks(T0 + DAY // 2)) == ["warming"]


def test_an_account_told_to_be_warm_that_never_was_is_told_nothing() -> None:
    lane = Lane()
    mistake = touch(0, "demo")
    assert names(lane.hears(mistake)) == ["warming"]

    assert lane.hears(mistake, gone=True, at=T0 + HOUR) == []
    assert lane.account.engagement.history == ()
    assert names(lane.hears(touch(1, "demo"))) == ["warming"]


def test_late_facts_alert_only_of_the_present_state() -> None:
    lane = Lane()
    lane.hears(touch(0, "demo"))

    assert lane.hears(touch(-1, "demo"), at=T0 + HOUR) == []
    assert names(lane.hears(touch(-0.5, "meeting"), at=T0 + 2 * HOUR)) == ["warmed"]


def test_quiet_accounts_have_a_history_and_no_alerts_then_or_afterwards() -> None:
    lane = Lane()
    lane.hears_change(T0 - DAY, quiet=True)

    assert lane.hears(touch(0, "demo"), touch(0, "meeting"), touch(0, "form_fill")) == []
    assert lane.hears_change(T0 + HOUR, quiet=None) == []
    assert lane.looks(T0 + DAY) == []
    assert names(lane.looks(T0 + 20 * DAY)) == ["cooling"]


def test_an_account_that_was_merged_has_no_warmth_until_it_is_split_off() -> None:
    lane = Lane()
    lane.hears(touch(0, "demo"))
    lane.hears_change(T0 + HOUR, mergedInto="beta.de")
    totals = lane.totals()

    assert (lane.account.parent, totals.alerts) == ("account:beta.de", [])


# --- what ---------------------------------------------------------------------------------


def story() -> tuple[Lane, list[Alert]]:
    """A demo and a quote warm acme.com, nothing follows, an ad with a form brings it back."""
    lane, sent = Lane(), []
    sent += lane.hears_change(T0 - DAY, name="Acme", attributes={"owner": "Grace", "industry": "steel"})
    sent += lane.hears_of_deal(
        Deal(
            "D1",
            T0 - 5 * DAY,
            "acme.com",
            stages=((T0 - 5 * DAY, "demo"), (T0 + DAY, "proposal")),
            named_by=("1", "2"),
            amount=5,
            currency="USD",
        ),
        T0 + DAY,
    )
    sent += lane.hears(touch(0, "demo", rep="Bo"), touch(0, "meeting"), touch(0.2, "call"), touch(0.4, "email_opened"))
    sent += lane.looks(T0 + 60 * DAY)
    sent += lane.hears(
        touch(60, "web_session", team="marketing", channel="retargeting", source="adroll", campaign="spring", hot=True),
        touch(60.001, "form_fill", team="marketing", channel="retargeting", source="adroll", campaign="spring"),
        person="bob@acme.com",
    )
    return lane, sent


def test_the_alert_names_the_ad_that_revived_and_says_what_had_cooled() -> None:
    _, sent = story()

    assert names(sent) == ["warmed", "cooling", "cooled", "warming"]
    revived = sent[-1]
    assert revived.rewarmed
    assert [(each.kind, each.channel, each.campaign) for each in revived.causes] == [
        ("form_fill", "retargeting", "spring"), ("web_session", "retargeting", "spring"),
    ]  # fmt: skip
    assert [(each.person, each.share) for each in revived.people] == [("bob@acme.com", 1.0)]
    assert [each.team for each in revived.teams] == ["marketing"]
    assert revived.cooled and revived.cooled.alert_id == sent[2].alert_id == revived.resolves
    assert [each.kind for each in revived.cooled.last_touches] == ["call", "meeting", "demo"]
    assert revived.cooled.owner == "Grace"
    assert revived.score.low and revived.score.low.at == to_text(T0 + 60 * DAY)


def test_a_cooling_alert_says_the_last_touches_and_how_long_deals_stood() -> None:
    _, sent = story()
    cooling = sent[1]

    assert cooling.causes == ()
    assert [each.kind for each in cooling.last_touches] == ["call", "meeting", "demo"]
    assert cooling.account.owner == "Grace"
    [deal] = cooling.deals
    assert (deal.deal_id, deal.stage, deal.stage_since) == ("D1", "proposal", to_text(T0 + DAY))
    assert (deal.median_days, deal.p90_days) == (10, 20)
    days = (parse_instant(cooling.at, "at") - T0 - DAY) // DAY
    assert deal.days_in_stage in (days, days + 1)


def test_the_deal_longest_over_the_usual_comes_first() -> None:
    lane = Lane()
    for id, stage, days in (("D1", "demo", 30), ("D2", "proposal", 35), ("D3", "demo", 2)):
        lane.hears_of_deal(Deal(id, T0 - 90 * DAY, stages=((T0 - days * DAY, stage),), named_by=("1",)), T0 - HOUR)

    [alert] = lane.hears(touch(0, "demo"))

    assert [(each.deal_id, each.days_in_stage, each.median_days) for each in alert.deals] == [
        ("D1", 30, None), ("D2", 35, 10), ("D3", 2, None),
    ]  # fmt: skip


def test_usual_stays_are_those_that_ended() -> None:
    histogram = tuple(int(days in (3, 5, 9)) for days in range(16))

    usuals = usuals_of({"left": {'["default","demo","won",0]': histogram, '["default","demo","lost",1]': histogram}})

    assert usuals == {("default", "demo"): Usual(9, 25)}


def test_without_an_owner_of_its_own_the_account_has_that_of_the_deal_changed_last() -> None:
    lane = Lane()
    for id, owner, changed in (("D1", "Al", T0 - 2 * DAY), ("D2", "Bo", T0 - DAY), ("D3", None, T0 - HOUR)):
        lane.hears_of_deal(Deal(id, T0 - 9 * DAY, owner=owner, changed_at=changed), T0 - HOUR)

    [alert] = lane.hears(touch(0, "demo"))

    assert alert.account.owner == "Bo"


def test_who_is_inactive_is_the_cause_where_that_alone_cooled() -> None:
    lane = Lane()
    lane.hears(touch(0, "email_clicked"))
    lane.hears(touch(23.5, "demo"), touch(23.5, "form_fill"), person="bob@acme.com")

    [cooling, *_] = lane.looks(T0 + 31 * DAY)

    assert (cooling.transition, cooling.at) == ("cooling", to_text(T0 + 30 * DAY))
    [cause] = cooling.causes
    assert (cause.touch_id, cause.kind, cause.person) == (None, "inactive", "ann@acme.com")
    assert [each.kind for each in cooling.touches] == ["form_fill", "demo", "email_clicked"]


def test_every_field_is_there() -> None:
    _, sent = story()

    for alert in sent:
        body = json.loads(encode(alert))
        assert body.keys() == {
            "alertId", "version", "transition", "from", "to", "at", "account", "rewarmed", "score", "causes", "people",
            "teams", "cooled", "lastTouches", "deals", "resolves", "late", "test",
        }  # fmt: skip
        assert body["account"].keys() == {"id", "name", "owner", "attributes"}
        assert body["score"].keys() == {"before", "after", "threshold", "low"}
        for cause in (*body["causes"], *body["lastTouches"]):
            assert cause.keys() == {
                "touchId", "kind", "team", "channel", "source", "campaign", "rep", "person", "at", "contribution",
                "share",
            }  # fmt: skip
        for deal in body["deals"]:
            assert deal.keys() == {
                "dealId", "name", "stage", "stageSince", "daysInStage", "medianDays", "p90Days", "amount", "currency",
                "owner",
            }  # fmt: skip


# --- incremental is batch -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Checkpoints that short journeys reach."""
    with mock.patch.multiple(gauge, CHECKPOINT=3, MOST_CHECKPOINTS=4):
        yield


_MOVES = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.integers(0, 60).map(lambda half: half / 2),
        st.sampled_from(("demo", "call", "web_session", "form_fill", "email_opened")),
        st.sampled_from(("comes", "comes", "comes", "goes", "loads", "waits")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(_MOVES)
def test_the_history_is_that_of_the_journey_in_whatever_order_touches_come_and_go(
    moves: list[tuple[str, float, str, str]],
) -> None:
    lane, there, clock = Lane(), {}, T0
    for person, days, kind, move in moves:
        each = msgspec.structs.replace(touch(days, kind), id=f"{person}{kind}{days}")
        clock = max(clock, each.at)
        if move == "waits":
            lane.looks(clock)
        elif move == "loads":
            lane = lane.again()
        else:
            lane.hears(each, person=person, gone=move == "goes")
            there[person, each.id] = each
            if move == "goes":
                del there[person, each.id]

        weights = RULES.scale
        whole = sorted(Touched(one.at, who, weights.weight(one.kind)) for (who, _), one in there.items())
        assert lane.account.engagement.history == history_of(whole, weights)


def test_a_long_journey_is_followed_from_its_last_checkpoint() -> None:
    rng = random.Random(4)
    lane = Lane()
    lane.hears(*(touch(rng.randrange(4000) / 10, "web_session") for _ in range(300)))
    again = lane.again()

    with mock.patch.object(gauge, "follow", wraps=gauge.follow) as follow:
        again.hears(touch(400, "demo"))

    assert sum(len(call.args[1]) for call in follow.call_args_list) < 20


class Watched(Touch, frozen=True, array_like=True):
    """A touch that notes that it was looked at."""

    looked_at: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        Watched.looked_at.add(super().__getattribute__("id"))
        return super().__getattribute__(name)


def looked_at_by_new_touches(journey: int) -> int:
    """How many touches are looked at for ten that come after a journey of so many, once the account has been cold."""
    lane = Lane()
    with mock.patch.object(received, "_touch", msgspec.msgpack.Decoder(Watched).decode):
        lane.hears(*(touch(number * 40 / journey, "call") for number in range(journey)))
        lane.looks(T0 + 300 * DAY)
        Watched.looked_at.clear()
        for number in range(10):
            lane.hears(touch(50 + number / 100, "call"))
    assert lane.account.engagement.history[-1].at > T0 + 50 * DAY
    return len(Watched.looked_at)


def test_a_new_touch_looks_at_no_more_touches_of_a_long_journey_than_of_a_short_one() -> None:
    halved = 4  # a search by halves looks at so many more

    assert looked_at_by_new_touches(10_000) <= looked_at_by_new_touches(1_000) + 10 * halved
