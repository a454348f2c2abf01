"""Models of the settings: factors, positions, decay, caps, and what is refused of them."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.conversions import Credit, Weighing, credits_of, milestones_of
from models.custom import CustomModel, _group_shares
from models.deals import Conversion
from models.errors import BadInput
from models.rules import Rules
from models.settings import Settings, parse_settings, rules_fingerprint
from models.times import DAY
from models.touches import Touch
from streams.reference import rules_from
from streams.versions import under


def rules(**models: Any) -> Rules:
    return rules_from(parse_settings({"models": models}))


def touch(day: int, kind: str = "web_session", channel: str = "email", team: str = "marketing") -> Touch:
    return Touch(day * DAY, f"t{day}", kind, team, channel)


def shares(law: Rules, touches: list[Touch], amount: int = 10_000, **said: Any) -> dict[str, list[int]]:
    """What each touch (at the end: nobody) earns of a win on day 30 under each model of the settings."""
    milestones = milestones_of("won", 30 * DAY, said.get("lead"), said.get("created"), 30 * DAY)
    won = Conversion("won", "D", 30 * DAY, amount)
    credits = credits_of(won, Weighing(30 * DAY, touches, milestones, said.get("roles", ())), law)
    by_touch = {None if each.touch is None else each.touch.id: each.shares(law) for each in credits}
    nothing = [0] * law.width
    return {
        name: [
            by_touch.get(each.id if each else None, nothing)[2 * law.models.index(name) + 1]
            for each in (*touches, None)
        ]
        for name in law.settings.models
    }


def test_a_model_without_any_table_is_linear() -> None:
    assert shares(rules(own={}), [touch(1), touch(2)]) == {"own": [5000, 5000, 0]}


def test_factors_multiply_and_default_to_the_default() -> None:
    law = rules(own={"kinds": {"Demo": 3, "default": 0.5}, "channels": {"event": 2}})
    touches = [touch(1), touch(2, "demo"), touch(3, "demo", "event")]

    assert shares(law, touches, 9500)["own"] == [500, 3000, 6000, 0]


def test_touches_with_a_factor_of_0_are_left_out_before_positions_are_found() -> None:
    law = rules(own={"positions": {"first": 60, "last": 40}, "kinds": {"email_opened": 0}})
    touches = [touch(1, "email_opened"), touch(2), touch(3), touch(4), touch(5, "email_opened")]

    assert shares(law, touches)["own"] == [0, 6000, 0, 4000, 0, 0]


def test_what_a_missing_position_would_have_goes_to_the_others_in_proportion() -> None:
    law = rules(own={"positions": {"first": 30, "lead": 50, "close": 10, "rest": 10}})

    assert shares(law, [touch(1), touch(2), touch(3)], 10_000)["own"] == [6750, 1000, 2250, 0]


def test_nothing_left_is_unattributed() -> None:
    law = rules(left_out={"kinds": {"web_session": 0}}, nowhere={"positions": {"lead": 1}})

    assert shares(law, [touch(1), touch(2)]) == {"left_out": [0, 0, 10_000], "nowhere": [0, 0, 10_000]}


def test_where_no_touch_holds_a_named_position_all_share_the_rest() -> None:
    law = rules(own={"positions": {"lead": 40, "close": 0, "rest": 60}}, strict={"positions": {"lead": 40}})

    assert shares(law, [touch(2), touch(4)], lead=1 * DAY) == {"own": [10_000, 0, 0], "strict": [0, 0, 10_000]}

    law = rules(own={"positions": {"lead": 40, "rest": 60}})

    assert shares(law, [touch(2), touch(4)], lead=1 * DAY)["own"] == [5000, 5000, 0]


def test_a_touch_of_hundreds_of_half_lives_still_takes_what_a_cap_leaves() -> None:
    law = rules(own={"decay": {"half_life_days": 0.05}, "caps": {"by": "channel", "max": 60}})
    touches = [touch(0, channel="event"), touch(1, channel="event"), touch(29)]

    assert shares(law, touches)["own"] == [0, 4000, 6000, 0]


def test_decay_halves_a_weight_each_half_life() -> None:
    law = rules(own={"decay": {"half_life_days": 1}})

    assert shares(law, [touch(27), touch(28), touch(29)], 700)["own"] == [100, 200, 400, 0]


def test_roles_are_weighed_without_case_and_nobody_s_role_is_none() -> None:
    law = rules(own={"roles": {"Champion": 3, "none": 0.5, "default": 1}})

    assert shares(law, [touch(1), touch(2), touch(3)], 4500, roles=["champion", None, "user"])["own"] == [
        3000,
        500,
        1000,
        0,
    ]


def test_stages_are_weighed_by_the_conversion_s_milestones() -> None:
    law = rules(own={"stages": {"awareness": 2, "decision": 0}})
    touches = [touch(1), touch(5), touch(20)]

    assert shares(law, touches, 9000, lead=2 * DAY, created=10 * DAY)["own"] == [6000, 3000, 0, 0]


def test_a_cap_holds_and_the_rest_is_shared_by_weight() -> None:
    law = rules(own={"kinds": {"demo": 8}, "caps": {"by": "kind", "max": 50, "values": ["demo"]}})

    assert shares(law, [touch(1), touch(2), touch(3, "demo")])["own"] == [2500, 2500, 5000, 0]


def test_a_group_that_exceeds_its_cap_by_what_another_leaves_is_capped_too() -> None:
    weights = {"a": Fraction(70), "b": Fraction(25), "c": Fraction(5)}
    caps = dict.fromkeys("ab", Fraction(2, 5))

    assert _group_shares(weights, caps) == {"a": Fraction(2, 5), "b": Fraction(2, 5), "c": Fraction(1, 5)}


def test_where_all_are_capped_the_whole_is_shared_in_proportion_to_the_caps() -> None:
    law = rules(own={"caps": {"by": "channel", "values": {"email": 10, "event": 30}}})

    assert shares(law, [touch(1), touch(2), touch(3, channel="event")])["own"] == [1250, 1250, 7500, 0]


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100) | st.none()), min_size=1, max_size=6),
)
def test_no_group_is_above_its_cap_unless_all_are(groups: list[tuple[int, int | None]]) -> None:
    weights = {str(number): Fraction(weight) for number, (weight, _) in enumerate(groups)}
    caps = {str(number): Fraction(cap, 100) for number, (_, cap) in enumerate(groups) if cap is not None}

    found = _group_shares(weights, caps)

    assert all(found[group] <= cap for group, cap in caps.items())
    assert sum(found.values()) == 1 or found == caps


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ({"positions": {"middle": 1}}, "models.own.positions"),
        ({"positions": {"first": 0}}, "models.own.positions"),
        ({"kinds": {"demo": -1}}, "models.own.kinds.demo"),
        ({"stages": {"interest": 1}}, "models.own.stages"),
        ({"decay": {"half_life_days": 0}}, "models.own.decay.half_life_days"),
        ({"decay": {"half_life_days": 1e-9}}, "models.own.decay.half_life_days"),
        ({"decay": {"half_life_days": float("inf")}}, "models.own.decay.half_life_days"),
        ({"caps": {"by": "team"}}, "models.own.caps.max"),
        ({"caps": {"by": "team", "max": 101}}, "models.own.caps.max"),
        ({"caps": {"by": "touch", "max": 10, "values": ["t1"]}}, "models.own.caps.values"),
        ({"caps": {"by": "rep", "max": 10}}, "models"),
        ({"teams": {"sales": "much"}}, "models"),
        ({"weights": {}}, "models"),
    ],
)
def test_an_impossible_model_is_refused_by_name(model: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInput) as refused:
        rules(own=model)

    assert refused.value.where.startswith(where)


def test_stored_rules_have_their_models_in_the_places_where_cells_keep_them() -> None:
    settings = parse_settings({"models": {"zeal": {}, "awe": {"kinds": {"demo": 2}}, "mild": {}}})

    again = under(Settings(), rules_fingerprint(settings))

    assert rules_from(again).models == rules_from(settings).models
    assert rules_from(again).custom == rules_from(settings).custom


@pytest.mark.parametrize("name", ["linear", "markov", "period", "channel", "Own", "own model", "2nd"])
def test_a_model_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        rules(**{name: {}})

    assert refused.value.where == f"models.{name}"


def test_factors_are_exact_decimals() -> None:
    model = parse_settings({"models": {"own": {"teams": {"sales": 0.1}}}}).models["own"]

    assert model == CustomModel(teams={"sales": Decimal("0.1")})


# --- the laws of credits --------------------------------------------------------------------

journeys = st.lists(
    st.builds(
        touch,
        st.integers(0, 30),
        st.sampled_from(("call", "demo", "web_session")),
        st.sampled_from(("email", "event", "direct")),
        st.sampled_from(("sales", "marketing", "product")),
    ),
    max_size=6,
    unique_by=lambda each: each.at,
).map(lambda touches: sorted(touches, key=lambda each: each.at))
LAW = rules(
    tilted={"positions": {"first": 40, "lead": 40, "rest": 20}, "kinds": {"call": 0}, "decay": {"half_life_days": 3.5}},
    capped={"teams": {"sales": 5}, "caps": {"by": "channel", "max": 45}},
)


def earned(touches: list[Touch], amount: int, counted: bool, lead: int | None) -> list[Credit]:
    milestones = milestones_of("won", 30 * DAY, lead, 10 * DAY, 30 * DAY)
    conversion = Conversion("won", "D", 30 * DAY, amount, counted)
    return credits_of(conversion, Weighing(30 * DAY, touches, milestones), LAW)


@given(journeys, st.integers(1, 10**9), st.none() | st.integers(0, 30).map(lambda day: day * DAY))
def test_credits_add_up_to_the_conversion_in_every_additive_model(
    touches: list[Touch], amount: int, lead: int | None
) -> None:
    sums = [
        sum(numbers)
        for numbers in zip(*(each.shares(LAW) for each in earned(touches, amount, True, lead)), strict=True)
    ]

    by_model = dict(zip(LAW.models, zip(sums[::2], sums[1::2], strict=True), strict=True))
    times = max(len(touches), 1)
    assert by_model.pop("participation") == (1_000_000 * times, amount * times)
    assert set(by_model.values()) == {(1_000_000, amount)}


@given(journeys, st.integers(1, 10**9), st.none() | st.integers(0, 30).map(lambda day: day * DAY))
def test_a_refund_in_full_nets_to_zero_with_its_win_at_every_touch_in_every_model(
    touches: list[Touch], amount: int, lead: int | None
) -> None:
    won, refunded = earned(touches, amount, True, lead), earned(touches, -amount, False, lead)

    left = {msgspec.json.encode(each.touch): each.shares(LAW)[1::2] for each in won}
    for each in refunded:
        name = msgspec.json.encode(each.touch)
        left[name] = [a + b for a, b in zip(left[name], each.shares(LAW)[1::2], strict=True)]
    assert not any(number for numbers in left.values() for number in numbers)
