"""Hot pages: which touches are hot, and when a later hit makes one so."""

import random

import pytest

from models.recompute import recompute
from tests.test_lanes import compare
from tests.test_recompute import fact, identify
from tests.worlds import RawFact, rules


def seen(minute: int, page: str) -> RawFact:
    ids = {"messageId": f"m{minute}", "timestamp": f"2026-02-01T10:{minute:02}:00Z", "anonymousId": "v1"}
    return fact("page-views", **ids, context={"page": {"url": f"https://www.site.com{page}"}})


@pytest.mark.parametrize(
    ("pages", "hot"),
    [
        (["/", "/about"], {"m0": False}),
        (["/", "/de/pricing/teams"], {"m0": True}),
        (["/demo"], {"m0": True}),
        (["/?next=/pricing"], {"m0": False}),
        (["/?utm_source=news", "/a", "/?utm_source=expo", "/compare"], {"m0": False, "m2": True}),
        (["/?utm_source=news", "/pricing", "/?utm_source=expo", "/b"], {"m0": True, "m2": False}),
        (["/?utm_source=news", "/?utm_source=expo", "/pricing?utm_source=news"], {"m0": True, "m1": False}),
        (["/?utm_source=news", "/?utm_source=expo", "/?utm_source=news", "/demo"], {"m0": True, "m1": False}),
        (["/pricing", "/?utm_source=news"], {"m1": False}),
    ],
)
def test_a_touch_is_hot_when_a_page_seen_under_it_is(pages: list[str], hot: dict[str, bool]) -> None:
    facts = [identify("2026-02-01T10:00:00Z", "ann@acme.com"), *(seen(n, page) for n, page in enumerate(pages))]

    books = recompute(facts, rules())

    assert {touch.id: touch.hot for _, touch in books.journeys["acme.com"]} == hot
    for seed in range(10):
        random.Random(seed).shuffle(facts)
        compare(facts, 0, seed)
