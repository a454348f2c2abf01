"""Warmth by hand: exact instants, every way up and down; and laws that hold for any touches."""

import random
from decimal import Decimal, getcontext, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.course import History
from models.settings import Settings, Warmth, check
from models.times import DAY, HOUR
from models.warmth import ACTIVE, Scale, Touched, ahead, fixed, history_of, present, state_at

T0 = 1_767_571_200_000_000
HALF = 14 * DAY
SCALE = Scale(Warmth())


def touch(days: float, weight: float, person: str = "ann") -> Touched:
    return Touched(T0 + round(days * DAY), person, fixed(weight) // 64)


def history(*touches: Touched, scale: Scale = SCALE) -> History:
    return history_of(sorted(touches), scale)


def told(found: History) -> list[tuple[str, int]]:
    return [(each.name, each.at - T0) for each in found]


def falls(score: str, threshold: str) -> int:
    """⌊half-life · log2(score/threshold)⌋ + 1, to 60 digits."""
    with localcontext(prec=60):
        ratio = Decimal(score) / Decimal(threshold)
        return int(HALF * (ratio.ln() / Decimal(2).ln())) + 1


# --- worked examples ------------------------------------------------------------------------


def test_a_demo_and_a_form_fill_warm_and_cool_again_at_their_exact_instants() -> None:
    found = history(touch(0, 12), touch(0, 8))

    assert told(found) == [("warming", 0), ("cooled", 2 * HALF + 1)]
    assert (found[0].before, found[0].after, found[0].low, found[0].low_at) == (0, 20, 0, T0)


def test_weights_are_given_to_kinds_as_facts_write_them() -> None:
    scale = Scale(Warmth(weights={"Lunch & Learn": 7, "web session": 2}))

    assert [scale.weight(kind) for kind in ("lunch_learn", "web_session")] == [fixed(7) // 64, fixed(2) // 64]


def test_someone_active_until_a_touch_counts_just_before_it() -> None:
    found = history(
        touch(30, 10, "bob"),
        Touched(T0 + 45 * DAY, "ann", fixed(5) // 64),
        Touched(T0 + 45 * DAY + 1, "ann", fixed(15) // 64),
        Touched(T0 + 61 * DAY + 1, "bob", fixed(6) // 64),
        Touched(T0 + 75 * DAY + 1, "bob", fixed(15) // 64),
    )

    assert ("warming", 75 * DAY + 1) not in told(found)


def test_exactly_a_threshold_is_not_below_it() -> None:
    assert told(history(touch(0, 10))) == [("warming", 0), ("cooled", HALF + 1)]


def test_a_warm_account_cools_then_is_cold() -> None:
    found = history(touch(0, 12), touch(0, 10), touch(0, 8))

    assert told(found) == [("warmed", 0), ("cooling", HALF + 1), ("cooled", falls("30", "5"))]
    assert found[1].before == found[1].after == 15
    assert found[1].low_at is None


def test_two_people_count_more_until_one_is_inactive() -> None:
    found = history(touch(0, 12, "ann"), touch(0, 12, "bob"))

    assert found[0].after == 30
    assert told(found) == [("warmed", 0), ("cooling", HALF + 1), ("cooled", falls("24", "5"))]


def test_the_instant_somebody_is_inactive_can_cool() -> None:
    found = history(touch(0, 4, "ann"), touch(29.5, 14, "bob"), scale=Scale(Warmth(warm=16, cooling=15)))

    assert [each.name for each in found[:2]] == ["warmed", "cooling"]
    assert (found[1].at, found[1].inactive, found[1].active) == (T0 + ACTIVE, "ann", 1)
    assert found[1].before > 15 > found[1].after


def test_a_touch_brings_a_cooling_account_back_only_from_below() -> None:
    warm = (touch(0, 15), touch(0, 15))
    above = history(*warm, touch(15, 1))
    below = history(*warm, touch(24, 5))

    assert [each.name for each in above] == ["warmed", "cooling", "cooled"]
    assert [(each.name, each.rewarmed) for each in below][:3] == [
        ("warmed", False), ("cooling", False), ("warming", True),
    ]  # fmt: skip


def test_who_was_warm_before_is_rewarmed() -> None:
    found = history(touch(0, 30), touch(100, 9), touch(101, 20))

    assert [(each.name, each.rewarmed) for each in found][:5] == [
        ("warmed", False), ("cooling", False), ("cooled", False), ("warmed", True), ("cooling", False),
    ]  # fmt: skip
    assert (found[3].low_at, found[3].at) == (T0 + 100 * DAY, T0 + 101 * DAY)


def test_the_low_point_is_the_latest_of_equals() -> None:
    found = history(touch(0, 4), touch(14, 0.5), touch(28, 9))

    assert found[0].low == 0
    assert found[0].low_at == T0


def test_one_instant_has_one_transition() -> None:
    found = history(*(touch(0, 10) for _ in range(9)))

    assert [each.name for each in found if each.at == T0] == ["warmed"]


def test_what_the_clock_has_not_reached_has_not_happened() -> None:
    found = history(touch(0, 30))

    assert state_at(found, T0 - 1) == "cold"
    assert state_at(found, T0 + HALF) == "warm"
    assert state_at(found, T0 + HALF + 1) == "cooling"
    assert [each.name for each in ahead(found, T0 + HALF)] == ["cooling", "cooled"]
    assert present(found, T0 - 1) is None


def test_touches_without_weight_change_nothing() -> None:
    assert history(touch(0, 30), touch(7, 0), touch(20, 0, "bob")) == history(touch(0, 30))


@pytest.mark.parametrize(
    "warmth",
    [Warmth(half_life_days=0), Warmth(cold=0), Warmth(cold=12), Warmth(cooling=30), Warmth(weights={"call": -1})],
)
def test_impossible_settings_are_refused(warmth: Warmth) -> None:
    from models.errors import BadInput

    with pytest.raises(BadInput, match="warmth"):
        check(Settings(warmth=warmth))


# --- laws, against the formula in so many words -------------------------------------------------


def score(touches: list[tuple[int, str, Decimal]], at: int, before: bool = False) -> Decimal:
    """The score at an instant, or just before it."""
    seen = [each for each in touches if each[0] < at + (not before)]
    active = {person for time, person, weight in seen if at - ACTIVE < time + before and weight > 0}
    factor = min(Decimal(2), Decimal("1.25") ** max(len(active) - 1, 0))
    return factor * sum((w * Decimal(2) ** (-Decimal(at - time) / HALF) for time, _, w in seen), Decimal(0))


def plain(touches: list[tuple[int, str, Decimal]]) -> list[tuple[int, str]]:
    """The transitions, by trying every instant at which there may be one."""
    instants = {time for time, _, _ in touches} | {time + ACTIVE for time, _, _ in touches}
    state, found, at = "cold", [], min(instants)
    while True:
        later = min((each for each in instants if each > at), default=None)
        after = turned(state, touches, at)
        if after != state:
            state = after
            found.append((at, state))
        while state != "cold":
            threshold = Decimal(15 if state == "warm" else 5)
            crossing = at + int(HALF * ((score(touches, at) / threshold).ln() / Decimal(2).ln())) + 1
            if later is not None and crossing >= later:
                break
            at = crossing
            state = "cooling" if state == "warm" else "cold"
            found.append((at, state))
        if later is None:
            return found
        at = later


def turned(state: str, touches: list[tuple[int, str, Decimal]], at: int) -> str:
    now = score(touches, at)
    if state != "warm" and now >= 25:
        return "warm"
    if state == "cold":
        return "warming" if now >= 10 else "cold"
    if now < 5:
        return "cold"
    if state == "warm":
        return "warm" if now >= 15 else "cooling"
    if state == "cooling" and any(time == at for time, _, _ in touches):
        return "warming" if score(touches, at, before=True) < 10 <= now else "cooling"
    return state


_TOUCHES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 160).map(lambda half: half * 12 * HOUR), st.integers(0, 80 * DAY)),
        st.sampled_from(("ann", "bob", "cy", "dee", "eve", "fay")),
        st.sampled_from(("1", "2", "3", "4", "6", "8", "10", "12")).map(Decimal),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=50, deadline=None)
@given(_TOUCHES)
def test_the_history_is_what_the_formula_says(touches: list[tuple[int, str, Decimal]]) -> None:
    getcontext().prec = 60

    found = history_of(sorted(Touched(at, person, fixed(float(w)) // 64) for at, person, w in touches), SCALE)

    assert [(each.at, each.state) for each in found] == plain(touches)
    for each in found:
        assert abs(Decimal(each.after) - score(touches, each.at)) < Decimal("1e-6")


@given(_TOUCHES, st.randoms())
def test_the_history_does_not_depend_on_the_order_of_touches_of_one_instant(
    touches: list[tuple[int, str, Decimal]], rng: random.Random
) -> None:
    one = [Touched(at, person, fixed(float(w)) // 64) for at, person, w in touches]
    other = rng.sample(one, len(one))

    assert history_of(sorted(one), SCALE) == history_of(sorted(other, key=lambda each: each.at), SCALE)


def test_whole_half_lives_leave_exact_scores() -> None:
    assert SCALE.decayed(fixed(10), 3 * HALF) == fixed(1.25)
