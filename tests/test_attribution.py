"""Weights and shares: the worked examples, and the laws that every model keeps."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.attribution import (
    BUILT_IN,
    MILLION,
    POSITION_MODELS,
    Path,
    apportion,
    position_weights,
    shapley_weights,
    team_weights,
    time_decay_weights,
)
from models.times import DAY


def weights(model: str, path: Path) -> list[Fraction] | None:
    """A position model's weights as parts of one."""
    found = POSITION_MODELS[model](path)
    return None if found is None else [Fraction(weight, sum(found)) for weight in found]


def percent(*parts: object) -> list[Fraction]:
    """Percentages as parts of one."""
    return [Fraction(str(part)) / 100 for part in parts]


def test_position_based_halves_an_amount_between_two_touches() -> None:
    found = POSITION_MODELS["position_based"](Path(2, 1, None, None, None))

    assert found is not None
    assert apportion(6650, found) == [3325, 3325]


def test_time_decay_of_the_worked_example() -> None:
    found = time_decay_weights([9 * DAY, 6 * DAY, 0, 0], 7 * DAY)

    assert apportion(5000, found) == [692, 932, 1688, 1688]


def test_linear_gives_the_odd_cent_to_the_earliest_touch() -> None:
    assert apportion(10_000_000, (1, 1, 1)) == [3333334, 3333333, 3333333]


@given(amount=st.integers(-10_000, 10_000), weights=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_the_largest_fractions_get_what_rounding_down_leaves_over(amount: int, weights: list[int]) -> None:
    total = sum(weights)
    assume(total)
    exact = [Fraction(abs(amount) * weight, total) for weight in weights]
    left_over = abs(amount) - sum(map(floor, exact))
    first = sorted(range(len(weights)), key=lambda number: (floor(exact[number]) - exact[number], number))[:left_over]

    shares = apportion(amount, tuple(weights))

    assert [abs(share) for share in shares] == [floor(each) + (number in first) for number, each in enumerate(exact)]
    assert sum(shares) == amount


def test_a_negative_amount_is_shared_as_the_positive_one_is() -> None:
    assert apportion(-1001, (1, 1, 1)) == [-334, -334, -333]


@pytest.mark.parametrize(
    ("model", "path", "expected"),
    [
        ("first_touch", Path(3, 1, 0, None, None), percent(100, 0, 0)),
        ("last_touch", Path(3, 1, 0, None, None), percent(0, 0, 100)),
        ("last_non_direct", Path(3, 1, 0, None, None), percent(0, 100, 0)),
        ("lead_creation", Path(3, 1, 2, None, None), percent(0, 0, 100)),
        ("opportunity_creation", Path(3, 1, 0, 1, None), percent(0, 100, 0)),
        ("position_based", Path(1, 0, 0, None, None), percent(100)),
        ("position_based", Path(4, 3, 0, None, None), percent(40, 10, 10, 40)),
        ("u_shaped", Path(4, 3, 1, None, None), percent(40, 40, 10, 10)),
        ("u_shaped", Path(2, 1, 1, None, None), percent(50, 50)),
        ("u_shaped", Path(3, 2, None, None, None), percent(80, 10, 10)),
        ("w_shaped", Path(5, 4, 1, 3, None), percent(30, 30, 5, 30, 5)),
        ("w_shaped", Path(3, 2, 0, None, None), percent(90, 5, 5)),
        ("full_path", Path(5, 4, 1, 3, 4), percent("22.5", "22.5", 10, "22.5", "22.5")),
        ("full_path", Path(2, 1, 0, 1, 1), percent(50, 50)),
        ("u_shaped_strict", Path(4, 3, 2, None, None), percent(50, 0, 50, 0)),
        ("u_shaped_strict", Path(4, 3, None, None, None), percent(100, 0, 0, 0)),
        ("j_shaped", Path(1, 0, None, None, None), percent(100)),
        ("j_shaped", Path(2, 1, None, None, None), percent(25, 75)),
        ("j_shaped", Path(4, 3, None, None, None), percent(20, 10, 10, 60)),
        ("inverse_j", Path(2, 1, None, None, None), percent(75, 25)),
        ("inverse_j", Path(4, 3, None, None, None), percent(60, 10, 10, 20)),
    ],
)
def test_positions_collect_what_they_hold_and_the_rest_is_shared(
    model: str, path: Path, expected: list[Fraction]
) -> None:
    assert weights(model, path) == expected


def test_j_shaped_of_the_worked_example() -> None:
    found = POSITION_MODELS["j_shaped"](Path(4, 3, None, None, None))

    assert found is not None
    assert apportion(5000, found) == [1000, 500, 500, 3000]


def test_shapley_of_the_worked_example() -> None:
    """v(S) as conversions by their exact set of channels: each goes to its channels equally."""
    worth = {"O": 7, "F": 6, "D": 4, "OF": 15, "OD": 7, "FD": 9, "OFD": 19}
    conversions = {
        channels: sum((-1) ** (len(channels) - len(some)) * worth[some] for some in worth if set(some) <= set(channels))
        for channels in worth
    }

    values = {"O": Fraction(0), "F": Fraction(0), "D": Fraction(0)}
    for channels, count in conversions.items():
        found = shapley_weights(channels)
        for channel, weight in zip(channels, found, strict=True):
            values[channel] += Fraction(count * weight, sum(found))

    assert [round(float(value), 4) for value in values.values()] == [7.6667, 8.1667, 3.1667]


def test_shapley_gives_each_channel_the_same_however_often_it_was_there() -> None:
    assert apportion(1200, shapley_weights(["email", "email", "event", "email"])) == [200, 200, 600, 200]


def test_team_split_divides_each_team_s_share_among_its_touches() -> None:
    found = team_weights(["marketing", "sales", "marketing", "product"], {"marketing": 1, "sales": 1})

    assert found is not None
    assert apportion(10_000, found) == [2500, 5000, 2500, 0]


def test_a_team_without_a_touch_leaves_its_share_to_the_others() -> None:
    found = team_weights(["sales", "sales"], {"marketing": 50, "sales": 30, "product": 20})

    assert found is not None
    assert apportion(100, found) == [50, 50]
    assert team_weights(["product"], {"marketing": 1, "sales": 1}) is None


@pytest.mark.parametrize(
    ("model", "path"), [("lead_creation", Path(2, 1, None, 0, 1)), ("opportunity_creation", Path(2, 1, 0, None, 1))]
)
def test_a_model_none_of_whose_positions_exists_earns_nobody_anything(model: str, path: Path) -> None:
    assert weights(model, path) is None


places = st.integers(1, 12).flatmap(
    lambda n: st.builds(
        Path,
        st.just(n),
        st.integers(0, n - 1),
        *(st.none() | st.integers(0, n - 1) for _ in range(3)),
    )
)


@given(path=places, amount=st.integers(-(10**12), 10**12))
def test_credits_of_every_model_add_up_to_the_conversion(path: Path, amount: int) -> None:
    for found in position_weights(path):
        if found is not None:
            assert sum(apportion(amount, found)) == amount
            assert sum(apportion(MILLION, found)) == MILLION
            assert min(found) >= 0


@given(ages=st.lists(st.integers(-DAY, 400 * DAY), min_size=1, max_size=12), amount=st.integers(0, 10**12))
def test_time_decay_adds_up_and_never_gives_an_older_touch_more(ages: list[int], amount: int) -> None:
    found = time_decay_weights(ages, 7 * DAY)

    assert sum(apportion(amount, found)) == amount
    by_age = [weight for _, weight in sorted(zip(ages, found, strict=True))]
    assert by_age == sorted(by_age, reverse=True)


@given(st.integers(1, 400))
def test_time_decay_halves_exactly_each_half_life(halvings: int) -> None:
    older, newer = time_decay_weights([7 * DAY * halvings, 0], 7 * DAY)

    assert older == newer >> halvings


def test_every_model_has_a_name_of_its_own() -> None:
    assert len(set(BUILT_IN)) == len(BUILT_IN) == 17
