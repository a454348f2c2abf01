"""Paths and removal effects: the figures of real paths, and that touch by touch comes to the same as all at once."""

import csv
import gzip
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import markov
from models.attribution import shapley_weights
from models.counts import Counts, add_counts, table_of, without_zero_counts
from models.journeys import Journey
from models.markov import START, UNIT, apportioned, chain_of, conversion_chances, removal_effects
from models.paths import CONVERTED, NULL, null_path_begins, path_counts, replaced_path, table_of_paths
from models.touches import Touch
from tests.conftest import shared_data

CHANNELS = ("email", "event", "direct")
paths = st.lists(st.sampled_from(CHANNELS), max_size=8)
orders = st.integers(1, 3)


def transitions(counts: Counts, kind: str = "won") -> dict[str, int]:
    """How often each transition was made."""
    return {field: number for field, (number,) in table_of(counts, table_of_paths(kind)).items()}


def counted(*some: tuple[str, str, int], order: int = 1) -> dict[str, int]:
    """Transitions of paths such as ("email event", CONVERTED, 3)."""
    counts: Counts = {}
    for path, end, times in some:
        for _ in range(times):
            add_counts(counts, path_counts("won", path.split(), end, order))
    return transitions(counts)


# --- removal effects --------------------------------------------------------------------


def real_paths() -> Iterator[tuple[list[str], int, int]]:
    """Channels, conversions and null paths of each row."""
    with gzip.open(shared_data("path_data") / "path_data.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            yield row["path"].split(" > "), int(float(row["total_conversions"])), int(float(row["total_null"]))


def real_transitions(order: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for path, converted, null in real_paths():
        for end, times in ((CONVERTED, converted), (NULL, null)):
            for count, _ in path_counts("won", path, end, order) if times else ():
                found[count.field] = found.get(count.field, 0) + times
    return found


def test_markov_on_real_paths_gives_the_known_figures() -> None:
    known = real_transitions(1)

    effects = removal_effects(known, 1)

    assert round(conversion_chances(chain_of(known, 1))[START], 6) == 0.223845
    total = sum(effects.values())
    shares = {channel: round(19_785 * effect / total, 2) for channel, effect in effects.items()}
    assert {channel: shares[channel] for channel in ("alpha", "iota", "eta", "beta")} == {
        "alpha": 5344.95,
        "iota": 3884.61,
        "eta": 3340.85,
        "beta": 2527.35,
    }


@pytest.mark.parametrize("order", [1, 2])
def test_elimination_and_sweeps_solve_the_same(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known = real_transitions(order)

    found = []
    for most in (0, 10_000):
        monkeypatch.setattr(markov, "_MOST_ELIMINATED", most)
        found.append(removal_effects(known, order))

    assert max(abs(found[0][channel] - found[1][channel]) for channel in found[0]) <= 1


def test_shapley_on_real_paths_adds_up_to_the_conversions() -> None:
    values: dict[str, float] = {}
    for path, converted, _ in real_paths():
        weights = shapley_weights(path)
        for channel, weight in zip(path, weights, strict=True):
            values[channel] = values.get(channel, 0.0) + converted * weight / sum(weights)

    assert round(sum(values.values()), 6) == 19_785
    assert max(values, key=lambda channel: values[channel]) == "alpha"


def test_an_effect_is_the_part_of_conversions_that_is_lost() -> None:
    known = counted(("email", CONVERTED, 3), ("event email", CONVERTED, 1), ("event", NULL, 1))

    # P = 3/5 + 2/5·1/2 (event leads to email half the time); without event 3/5
    assert removal_effects(known, 1) == {"email": UNIT, "event": round(UNIT / 4)}


def test_a_state_of_higher_order_remembers_where_one_came_from() -> None:
    some = (("email direct", CONVERTED, 1), ("event direct", NULL, 1))

    assert removal_effects(counted(*some, order=1), 1)["event"] == UNIT // 2
    assert removal_effects(counted(*some, order=2), 2)["event"] == 0


def test_without_a_conversion_there_is_no_effect() -> None:
    assert removal_effects(counted(("email", NULL, 2)), 1) == {}
    assert removal_effects({}, 1) == {}


def test_ties_go_to_the_smaller_channel() -> None:
    assert apportioned(-100, {"a": 1, "b": 1, "c": 1}) == {"a": -34, "b": -33, "c": -33}


@given(st.lists(st.tuples(paths.filter(bool), st.booleans()), min_size=1, max_size=6), orders)
def test_the_chance_of_a_conversion_is_that_of_the_paths(walked: list[tuple[list[str], bool]], order: int) -> None:
    counts: Counts = {}
    for path, converted in walked:
        add_counts(counts, path_counts("won", path, CONVERTED if converted else NULL, order))

    chances = conversion_chances(chain_of(transitions(counts), order))
    effects = removal_effects(transitions(counts), order)

    assert chances[START] == pytest.approx(sum(converted for _, converted in walked) / len(walked), abs=1e-12)
    assert all(0 <= effect <= UNIT for effect in effects.values())


# --- paths ------------------------------------------------------------------------------


@given(paths, paths, orders)
def test_a_replaced_path_leaves_the_counts_of_the_new_one(old: list[str], new: list[str], order: int) -> None:
    counts: Counts = {}
    add_counts(counts, path_counts("lead", old, NULL, order))
    add_counts(counts, replaced_path("lead", old, new, order))

    assert without_zero_counts(counts) == without_zero_counts(all_at_once("lead", new, order))


def all_at_once(kind: str, channels: list[str], order: int) -> Counts:
    counts: Counts = {}
    add_counts(counts, path_counts(kind, channels, NULL, order))
    return counts


@given(st.randoms(use_true_random=False), orders)
def test_null_paths_kept_touch_by_touch_are_those_of_the_whole_journey(rng: random.Random, order: int) -> None:
    journey = Journey(order)
    journey.begin({"opportunity": 0, "won": 5})
    live: Counts = {}
    held: list[tuple[str, Touch]] = []
    for number in range(25):
        if held and rng.random() < 0.4:
            journey.remove(*held.pop(rng.randrange(len(held))))
        else:
            held.append(("path", Touch(rng.randrange(20), f"t{number}", "call", "sales", rng.choice(CHANNELS))))
            journey.add(*held[-1])
        if rng.random() < 0.3:
            journey.begin({"won": rng.randrange(22)})
        add_counts(live, journey.changes())

        batch: Counts = {}
        for kind, begins in journey.begins.items():
            channels = [touch.channel for touch in journey.touches if touch.at >= begins]
            add_counts(batch, path_counts(kind, channels, NULL, order))
        assert without_zero_counts(live) == batch
        assert dict(journey.null_counts()).keys() == batch.keys()


def test_a_touch_at_the_end_of_a_long_journey_changes_as_little_as_at_that_of_a_short_one() -> None:
    noted = []
    for length in (10, 10_000):
        journey = Journey(2)
        journey.begin({"won": 0})
        for number in range(length):
            journey.add("path", Touch(number, f"t{number}", "call", "sales", CHANNELS[number % 3]))
        journey.changes()
        journey.add("path", Touch(length, "last", "call", "sales", "email"))
        journey.begin({"won": 1})
        noted.append(sum(abs(number) for _, (number,) in journey.changes()))

    assert max(noted) <= 12


@pytest.mark.parametrize(
    ("last_conversion", "latest_touch", "begins"),
    [(None, None, None), (None, 100, 90), (50, 100, 90), (95, 100, 96), (100, 100, 101), (120, 100, 121)],
)
def test_a_null_path_begins_after_the_last_conversion_and_within_the_lookback_of_the_latest_touch(
    last_conversion: int | None, latest_touch: int | None, begins: int | None
) -> None:
    found = null_path_begins(last_conversion, latest_touch, 10)

    assert found == begins if begins is not None else found < 0


@given(paths.filter(bool), orders)
def test_transitions_are_of_channels_that_followed_each_other(path: list[str], order: int) -> None:
    fields = [count.field.split("\0") for count, _ in path_counts("won", path, CONVERTED, order)]

    assert [field[-1] for field in fields] == [*path, CONVERTED]
    assert all(earlier[-1] == later[-2] for earlier, later in pairwise(fields))
    assert max(map(len, fields)) <= order + 1
