"""Hand-calculated examples for the independent calculation of warmth (rules.md section 9, rules-more.md)."""

from decimal import Decimal

from tests.oracle import DAY, HOUR, Touch
from tests.oracle_warmth import (
    LAW,
    Push,
    alerts,
    causes,
    falls,
    history,
    last_touches,
    low_point,
    next_after,
    score,
    score_before,
    state_at,
    sums,
    weight_of,
)

HALF = 14 * DAY


def push(at, weight, person="ann", id="t"):
    return Push(at, Decimal(weight), person, id)


def told(touches):
    return [(each.name, each.at, each.rewarmed) for each in history(touches)]


def test_a_score_halves_in_fourteen_days():
    one = [push(0, 10)]

    assert score(one, 0) == 10
    assert score(one, HALF) == 5
    assert score(one, 2 * HALF) == Decimal("2.5")
    assert score(one, -1) == 0


def test_each_further_active_person_warms_by_a_quarter_up_to_double():
    team = [push(0, 10, name) for name in "abcdefg"]

    assert [score(team[:n], 0) for n in (1, 2, 3)] == [10, 25, Decimal("46.875")]
    assert score(team, 0) == 140
    assert score([push(0, 10), push(0, 0, "b")], 0) == 10  # a touch of no weight makes nobody active
    assert score(team[:2], 30 * DAY - 1) > score(team[:2], 30 * DAY) * Decimal("1.2")  # inactive at exactly 30 days
    assert score_before(team[:2], 30 * DAY) > score(team[:2], 30 * DAY) * Decimal("1.2")


def test_thresholds_are_reached_when_met():
    assert told([push(0, 9)]) == []
    assert told([push(0, 10)]) == [("warming", 0, False), ("cooled", HALF + 1, False)]
    assert told([push(0, 25)])[0] == ("warmed", 0, False)
    assert [name for name, _, _ in told([push(0, 24)])] == ["warming", "cooled"]


def test_the_first_microsecond_below_is_exact():
    assert falls([push(0, 30)], 0, LAW.cooling, LAW) == HALF + 1
    assert falls([push(0, 20)], 0, LAW.cold, LAW) == 2 * HALF + 1
    # log2(25/15) = 0.73696559416620616641658..., of 1,209,600,000,000 us
    assert falls([push(0, 25)], 0, LAW.cooling, LAW) == 891_433_582_703 + 1
    assert told([push(0, 30)]) == [
        ("warmed", 0, False),
        ("cooling", HALF + 1, False),
        ("cooled", falls([push(0, 30)], 0, LAW.cold, LAW), False),
    ]


def test_warming_does_not_cool_before_five():
    first = told([push(0, 12), push(HALF, 0)])

    assert [name for name, _, _ in first] == ["warming", "cooled"]


def test_a_cooling_account_is_warming_only_when_a_touch_lifts_it_over_ten():
    base = [push(0, 30)]  # 15 at 14 days: cooling; 10 at 22.19 days
    early, late = push(15 * DAY, 3, id="e"), push(24 * DAY, 3, id="l")

    assert [name for name, _, _ in told([*base, early])] == ["warmed", "cooling", "cooled"]  # 14.3 to 17.3
    assert [name for name, _, _ in told([*base, late])] == ["warmed", "cooling", "warming", "cooled"]  # 9.1 to 12.1
    assert told([*base, late])[2] == ("warming", 24 * DAY, True)
    again = told([*base, push(24 * DAY, 20)])
    assert again[2] == ("warmed", 24 * DAY, True)
    weightless = told([*base, push(24 * DAY, 0)])
    assert [name for name, _, _ in weightless] == ["warmed", "cooling", "cooled"]


def test_an_instant_has_one_transition_however_far_it_goes():
    assert told([push(0, 10, id="a"), push(0, 15, id="b")])[0] == ("warmed", 0, False)
    # six people at 4 each, 2 x 24 = 48; after 30 days all cease at one instant: 24 x 2^(-30/14) = 5.43 from 10.87
    crowd = [push(0, 4, name) for name in "abcdef"]
    names = told(crowd)
    assert names[0] == ("warmed", 0, False) and names[1][0] == "cooling" and names[1][1] < 30 * DAY
    # 17 days after 33 by five people of 26.4: just above 15 until the first of them ceases
    drop = [push(0, 5, "a"), push(0, 5, "b"), push(29 * DAY, 11, "c")]
    assert [(name, at) for name, at, _ in told(drop)][:2] == [("warming", 0), ("cooled", told(drop)[1][1])]


def test_a_person_who_ceases_to_be_active_cools_at_that_instant():
    # 10 by a at 0 and 14 by b at 29 days: at 30 days (10 x 0.2264 + 14 x 0.9517) x 1.25 = 19.48, then 15.59 alone
    touches = [push(0, 10, "a"), push(29 * DAY, 13, "b"), push(29 * DAY, 3, "b")]
    # 10 at 29 d: 2.379 + 16 = 18.379 x 1.25 = 22.97: still warming; at 30 d it is 17.49
    assert [name for name, _, _ in told(touches)][:1] == ["warming"]
    warm = [push(0, 10, "a"), push(29 * DAY, 18, "b")]  # (2.379 + 18) x 1.25 = 25.47; at 30 d 19.40
    assert [(name, at) for name, at, _ in told(warm)][1] == ("cooled", told(warm)[1][1])
    assert ("warmed", 29 * DAY, False) in told(warm)
    # cooled to cooling by b's going: score just before 16.5, just after 13.2
    gone = [push(0, 5, "a"), push(10 * DAY, 21, "b")]  # at 10 d (3.05 + 21) x 1.25 = 30.06; at 30 d 8.93 x 1.25
    assert told(gone)[0] == ("warmed", 10 * DAY, False)
    late = [push(0, 2, "a"), push(25 * DAY, 20, "b")]  # at 25 d (0.58 + 20) x 1.25 = 25.7; 30 d: (.45 + 15.61) x 1.25
    assert told(late)[:2] == [("warmed", 25 * DAY, False), ("cooling", told(late)[1][1], False)]
    assert told(late)[1][1] > 30 * DAY  # 16.07 is above 15, so it is the decay that cools
    exact = [push(0, 2, "a"), push(24 * DAY, 20, "b")]  # 24 d: 25.76; before 30 d 19.13, then 15.31 x ...
    assert told(exact)[1][0] == "cooling" and told(exact)[1][1] > 30 * DAY
    earlier = [push(0, 2, "a"), push(23 * DAY, 20, "b")]  # 30 d: 0.4529 + 14.14 = 14.595: x 1.25 = 18.24 just before
    assert told(earlier)[1] == ("cooling", 30 * DAY, False)


def test_low_point_and_causes():
    base, low, high = push(0, 10, id="a"), push(HALF // 2, 4, "bob", id="b"), push(HALF, 20, id="c")
    [warming, warmed, *_] = history([base, low, high])

    assert (warming.name, warmed.name, warmed.at) == ("warming", "warmed", HALF)
    assert low_point([base, low, high], warming) == (0, 0)
    at, value = low_point([base, low, high], warmed)
    assert at == HALF // 2 and round(value, 6) == round(10 / Decimal(2).sqrt(), 6)
    rows = causes([base, low, high], warmed)
    assert [(push.id, round(value, 3)) for push, value in rows] == [("c", Decimal("25.000")), ("b", Decimal("3.536"))]
    assert [round(value) for value in sums(rows, "person").values()] == [25, 4]


def test_equal_contributions_are_told_later_first_and_equal_lows_by_the_latest():
    pair = [push(0, 5, id="a"), push(0, 5, id="b")]

    assert [push.id for push, _ in causes(pair, history(pair)[0])] == ["b", "a"]
    nothing = [push(-DAY, 0, id="x"), *pair]
    assert low_point(nothing, history(nothing)[0]) == (0, 0)
    assert [push.id for push in last_touches([*pair, push(3, 0), push(4, 1, id="d"), push(5, 1, id="e")], 9)] == [
        "e",
        "d",
        "b",
    ]


def test_states_and_what_comes_next():
    touches = [push(0, 30), push(100 * DAY, 25)]

    assert [state_at(touches, at) for at in (-1, 0, HALF, HALF + 1)] == ["cold", "warm", "warm", "cooling"]
    assert next_after(touches, 0).at == HALF + 1
    assert next_after(touches, 60 * DAY).name == "warmed"


def test_weights_of_touches():
    def weigh(kind, *pages):
        return weight_of(Touch("t", 0, kind, pages=list(pages)))

    assert [weigh(kind) for kind in ("web_session", "call", "odd", "email_opened", "chat")] == [1, 6, 0, 0, 6]
    assert [weigh("web_session", page) for page in ("/", "/en/pricing/x", None, "/demos")] == [1, 3, 1, 3]
    assert weigh("form_fill", "/pricing") == 8


# --- alerts


def sent(*changes, now):
    return [(each.name, each.at) for each in alerts(changes, now)]


def test_each_transition_is_alerted_as_it_is_found():
    touches = [push(0, 30)]

    assert sent((0, touches), now=0) == [("warmed", 0)]
    assert sent((HOUR, touches), now=HALF) == [("warmed", 0)]
    assert sent((HOUR, touches), now=HALF + 1) == [("warmed", 0), ("cooling", HALF + 1)]
    assert [name for name, _ in sent((HOUR, touches), now=99 * DAY)] == ["warmed", "cooling", "cooled"]


def test_what_is_found_a_day_later_is_alerted_silently():
    touches = [push(0, 30)]

    assert sent((DAY, touches), now=DAY) == [("warmed", 0)]
    assert sent((DAY + 1, touches), now=DAY + 1) == []
    assert sent((DAY + 1, touches), now=HALF + 1) == [("cooling", HALF + 1)]  # computed ahead, found passed
    assert sent((HALF + 2 * DAY, touches), now=HALF + 2 * DAY) == []  # a backfill alerts nobody


def test_a_state_that_is_over_is_not_alerted():
    assert sent((HOUR, [push(0, 30)]), (2 * HOUR, []), now=3 * HOUR) == [("warmed", 0)]
    again = sent((HOUR, [push(0, 30)]), (2 * HOUR, []), (3 * HOUR, [push(0, 30)]), now=3 * HOUR)
    assert again == [("warmed", 0)]  # its id was sent
