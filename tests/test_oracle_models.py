"""Hand-calculated examples for the independent calculation of all models (rules.md section 6, rules-more.md)."""

import csv
import gzip
from decimal import Decimal
from fractions import Fraction

import pytest

from tests.conftest import shared_data
from tests.oracle import DAY, Touch
from tests.oracle_models import (
    Chain,
    Journey,
    by_effect,
    capped,
    chain_of,
    null_path,
    shapley_of,
    split,
)


def touches(*rows, moment=100 * DAY):
    """(age in days, channel, team, kind, owner); what is left out is the same for all."""
    found = []
    for number, row in enumerate(rows):
        age, channel, team, kind, owner = (*row, *("email", "marketing", "call", "a@acme.com")[len(row) - 1 :])
        found.append(Touch(f"t{number}", moment - int(age * DAY), kind, owner, team=team, channel=channel))
    return found


def journey(*rows, lead=None, opportunity=None, close=None, roles=None):
    return Journey(touches(*rows), 100 * DAY, lead, opportunity, close, roles or {})


def shares(model, amount, given, **custom):
    return split("mine" if custom else model, amount, given, {"models": {"mine": custom}} if custom else None)


# --- rule-based


@pytest.mark.parametrize(
    "model, n, expected",
    [
        ("j_shaped", 1, [5000]),
        ("j_shaped", 2, [1250, 3750]),
        ("j_shaped", 4, [1000, 500, 500, 3000]),
        ("inverse_j", 1, [5000]),
        ("inverse_j", 2, [3750, 1250]),
        ("inverse_j", 4, [3000, 500, 500, 1000]),
        ("position_based", 2, [2500, 2500]),
        ("participation", 3, [5000, 5000, 5000]),
        ("shapley", 4, [1250] * 4),
    ],
)
def test_models_of_place(model, n, expected):
    assert shares(model, 5000, journey(*[(n - i,) for i in range(n)])) == expected


def test_u_shaped_strict_has_no_rest():
    given = journey((5,), (4,), (3,), lead=96 * DAY)

    assert shares("u_shaped_strict", 1000, given) == [500, 500, 0]
    given.lead = None
    assert shares("u_shaped_strict", 1000, given) == [1000, 0, 0]  # the missing lead's share to the first
    given.lead = 95 * DAY
    assert shares("u_shaped_strict", 1000, given) == [1000, 0, 0]  # one touch holds both
    given.lead = 94 * DAY
    assert shares("u_shaped_strict", 1000, given) == [1000, 0, 0]  # no touch at or before


def test_team_split_leaves_the_share_of_a_missing_team_to_the_others():
    given = journey((3, "email", "marketing"), (2, "email", "marketing"), (1, "email", "sales"), (0, "x", "product"))

    assert shares("team_split", 1000, given) == [250, 250, 500, 0]
    assert split("team_split", 1000, given, {"team_split": {"marketing": 30, "product": 20, "sales": 50}}) == [
        150,
        150,
        500,
        200,
    ]
    assert split("team_split", 1000, given, {"team_split": {"marketing": 30, "success": 70}}) == [500, 500, 0, 0]
    assert split("team_split", 1000, given, {"team_split": {"success": 100}}) is None
    # 30 : 10, the missing 60 in proportion
    some = {"marketing": 30, "product": 10, "success": 60}
    assert split("team_split", 1000, given, {"team_split": some}) == [375, 375, 0, 250]


def test_shapley_gives_each_channel_the_same_and_its_touches_equal_parts():
    given = journey((4, "email"), (3, "display"), (2, "email"), (1, "email"))

    assert shares("shapley", 1000, given) == [167, 500, 167, 166]


# --- custom


def test_a_custom_model_without_anything_is_linear():
    assert shares("", 1000, journey((3,), (2,), (1,)), kinds={"default": 2}) == [334, 333, 333]


def test_factors_multiply_and_those_of_nothing_leave_out_before_positions_are_found():
    given = journey((4, "email", "marketing", "chat"), (3, "email", "sales"), (2, "display"), (1, "email"))

    assert shares("", 1000, given, positions={"first": 50, "last": 50}, kinds={"chat": 0}) == [0, 500, 0, 500]
    assert shares("", 700, given, teams={"sales": 2, "default": "0.5"}, channels={"display": 4}) == [70, 280, 280, 70]
    assert shares("", 700, given, channels={"default": 0}) is None


def test_roles_and_stages_are_factors_too():
    given = journey(
        (4, "a", "marketing", "call", "ann"), (3, "a", "marketing", "call", "bob"), (2,), lead=96 * DAY,
        roles={"bob": "buyer"},
    )  # fmt: skip

    assert shares("", 1000, given, roles={"buyer": 3}) == [200, 600, 200]
    assert shares("", 1000, given, stages={"awareness": 8}) == [800, 100, 100]


def test_a_missing_position_of_a_custom_model_goes_to_the_others():
    given = journey((4,), (3,), (2,), (1,))

    assert shares("", 1000, given, positions={"first": 30, "lead": 20, "last": 10, "rest": 40}) == [450, 200, 200, 150]
    assert shares("", 1000, given, positions={"lead": 60, "opportunity": 40}) is None


def test_the_decay_of_a_custom_model_halves():
    assert shares("", 700, journey((4,), (2,), (0,)), decay={"half_life_days": 2}) == [100, 200, 400]
    weighted = shares(
        "", 800, journey((4,), (2,), (0,)), decay={"half_life_days": 2}, positions={"first": 4, "rest": 4}
    )
    assert weighted == [200, 200, 400]  # 4/4 : 2/2 : 2/1


def test_caps_set_a_group_to_its_most_and_share_the_rest():
    weights = [Fraction(6), Fraction(3), Fraction(1)]

    assert capped(weights, "abc", {"max": 50}) == [Fraction(1, 2), Fraction(3, 8), Fraction(1, 8)]
    # a is set to 40, b would be 45, so 40 too, and c has the rest
    assert capped(weights, "abc", {"max": 40}) == [Fraction(2, 5), Fraction(2, 5), Fraction(1, 5)]
    equal = capped(weights, "abc", {"max": 20})  # all capped: in proportion to the caps
    assert equal == [Fraction(1, 5)] * 3
    # one group of two touches, 9 of 10, set to 70 %: its touches by weight
    assert capped(weights, "aac", {"max": 70}) == [Fraction(14, 30), Fraction(7, 30), Fraction(3, 10)]
    assert capped(weights, "abc", {"max": 40, "values": ["a"]}) == [Fraction(2, 5), Fraction(9, 20), Fraction(3, 20)]
    assert capped([Fraction(1), Fraction(0)], "ab", {"max": 40}) == [Fraction(2, 5), Fraction(0)]


def test_caps_are_in_percent_of_the_conversion():
    given = journey((3, "email"), (2, "email"), (1, "display"))

    assert shares("", 1000, given, caps={"by": "channel", "max": 60}) == [300, 300, 400]
    assert shares("", 1000, given, caps={"by": "touch", "max": 50}) == [334, 333, 333]
    assert shares("", 1000, given, caps={"by": "team", "max": 10}) == [334, 333, 333]


# --- Shapley and Markov over paths


def test_the_worked_example_of_shapley():
    v = {"O": 7, "F": 6, "D": 4, "OF": 15, "OD": 7, "FD": 9, "OFD": 19}

    found = shapley_of({frozenset(names): value for names, value in v.items()})

    assert [round(float(found[name]), 4) for name in "OFD"] == [7.6667, 8.1667, 3.1667]


def test_shapley_of_the_counted_sets_is_an_equal_share_of_each_conversion():
    paths = [("a",), ("a", "b"), ("a", "b", "a"), ("b", "c", "d"), ("d",), ("d", "a")]
    names = sorted({name for path in paths for name in path})
    sets = [frozenset(n for i, n in enumerate(names) if mask >> i & 1) for mask in range(2 ** len(names))]
    v = {chosen: sum(set(path) <= chosen for path in paths) for chosen in sets}

    equal = {name: sum((Fraction(1, len(set(p))) for p in paths if name in p), Fraction(0)) for name in names}

    assert shapley_of(v) == equal


def test_a_chain_by_hand():
    chain = chain_of(1, [("a", "b"), ("a",)], [("b",), ("a", "a")])
    # start: a 3/4, b 1/4; a: a 1/4, b 1/4, won 1/4, null 1/4; b: won 1/2, null 1/2
    # P(a) = (1/4 P(b) + 1/4) / (3/4) = 1/2, P = 1/2; without a 1/8; without b P(a) = 1/3, so 1/4

    assert chain.conversion() == Decimal("0.5")
    assert chain.effects() == {"a": Decimal("0.75"), "b": Decimal("0.5")}
    assert by_effect(100, chain.effects()) == {"a": 60, "b": 40}
    assert by_effect(-1, {"b": Decimal(1), "a": Decimal(1)}) == {"a": -1, "b": 0}


def test_a_chain_of_the_second_order_remembers_two_channels():
    chain = chain_of(2, [("a", "b")], [("b",), ("b", "a", "b")])
    # (): a 1/3, b 2/3; a -> ab; ab: won 1/2, null 1/2; b: null 1/2, ba 1/2; ba -> ab

    assert set(chain.counts) >= {((), ("a",)), (("a",), ("a", "b")), (("b", "a"), ("a", "b")), (("a", "b"), True)}
    assert round(chain.conversion(), 20) == round(Decimal(1) / 3, 20)  # 1/3 x 1/2 + 2/3 x 1/2 x 1/2
    assert chain.effects() == {"a": Decimal(1), "b": Decimal(1)}


def test_the_worked_example_of_markov():
    chain = Chain(1)
    total = 0
    with gzip.open(shared_data("path_data") / "path_data.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            converted, null = int(float(row["total_conversions"])), int(float(row["total_null"]))
            total += converted
            chain.add(row["path"].split(" > "), converted, null)

    millionths = by_effect(total * 1_000_000, chain.effects())
    credited = {name: round(count / 10_000) for name, count in millionths.items()}

    assert round(chain.conversion(), 6) == Decimal("0.223845")
    assert [credited[name] for name in ("alpha", "iota", "eta", "beta")] == [534495, 388461, 334085, 252735]
    assert total == 19785


def test_a_null_path_is_what_came_after_the_last_conversion():
    all_touches = touches((50,), (40,), (30,), (1,))

    assert null_path(all_touches, [], 90 * DAY) == all_touches
    assert null_path(all_touches, [60 * DAY], 90 * DAY) == all_touches[2:]
    assert null_path(all_touches, [], 29 * DAY) == all_touches[2:]
    assert null_path(all_touches, [99 * DAY], 29 * DAY) == []
