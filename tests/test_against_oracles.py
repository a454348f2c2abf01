"""The product against the independent calculations, on generated inputs that sit on boundaries.

TOUCHLINE_EXAMPLES is how many inputs each comparison draws.
"""

import os
import random
from decimal import Decimal

import pytest

from models.settings import Warmth
from models.times import DAY, HOUR, MINUTE
from models.warmth import Scale, Touched, fixed, history_of
from tests import oracle_warmth

EXAMPLES = int(os.environ.get("TOUCHLINE_EXAMPLES", "80"))
BEGIN = 1_767_571_200_000_000


# --- warmth -----------------------------------------------------------------------------


def pushes(rng: random.Random) -> list[oracle_warmth.Push]:
    """Touches of one account, many of them exactly half-lives, 30 days, or nothing apart."""
    at, found = BEGIN, []
    people = "abcdefg"[: rng.choice((1, 1, 2, 3, 7))]
    for number in range(rng.randint(1, 16)):
        at += rng.choice((0, 0, 1, MINUTE, HOUR, DAY, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 15 * DAY, 16 * DAY, 30 * DAY))
        at += rng.choice((0,) * 8 + (-1, 1, rng.randrange(DAY)))
        weight = Decimal(rng.choice((0, 1, 2, 3, 4, 5, 6, 6, 8, 8, 10, 10, 12, 15, 20, 25)))
        found.append(oracle_warmth.Push(at, weight, rng.choice(people), f"t{number}"))
    lapses = {each.at + 30 * DAY for each in found}
    return [each for each in found if each.at not in lapses]  # which of the two comes first is ours to say


def histories(touches: list[oracle_warmth.Push], warmth: Warmth, law: oracle_warmth.Law) -> tuple[object, object]:
    scale = Scale(warmth)
    weighed = sorted(Touched(each.at, each.person, fixed(float(each.weight)) // 64) for each in touches if each.weight)
    ours = history_of(weighed, scale)
    theirs = oracle_warmth.history(touches, law)
    return (
        [(each.name, each.at, each.rewarmed) for each in ours],
        [(each.name, each.at, each.rewarmed) for each in theirs],
    )


@pytest.mark.parametrize(
    "warmth, law",
    [
        (Warmth(), oracle_warmth.LAW),
        (
            Warmth(half_life_days=7, warm=20, warming=8, cooling=10, cold=4),
            oracle_warmth.Law(Decimal(7 * DAY), 30 * DAY, Decimal(20), Decimal(8), Decimal(10), Decimal(4)),
        ),
    ],
)
def test_warmth_has_the_transitions_of_the_rules_to_the_microsecond(warmth: Warmth, law: oracle_warmth.Law) -> None:
    for seed in range(EXAMPLES):
        touches = pushes(random.Random(seed))

        ours, theirs = histories(touches, warmth, law)

        assert ours == theirs, seed


def test_warmth_has_the_scores_and_low_points_of_the_rules() -> None:
    for seed in range(EXAMPLES):
        touches = pushes(random.Random(seed))
        weighed = sorted(
            Touched(each.at, each.person, fixed(float(each.weight)) // 64) for each in touches if each.weight
        )

        for each in history_of(weighed, Scale(Warmth())):
            assert abs(Decimal(each.after) - oracle_warmth.score(touches, each.at)) < Decimal("1e-6"), seed
            if each.name in ("warming", "warmed"):
                [same] = [other for other in oracle_warmth.history(touches) if other.at == each.at]
                at, value = oracle_warmth.low_point(touches, same)
                assert each.low_at == at, (seed, each)
                assert abs(Decimal(each.low or 0) - value) < Decimal("1e-6"), seed
