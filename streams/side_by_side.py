"""Two versions of the rules side by side: what each says of the same facts, and how much differs.

pause ▶ both at the same facts ▶ rows of both, copies of their accounts ▶ go on ▶ differences
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from models.accounts import Account
from models.booked import all_credits
from models.catalogue import every_model, kept_models
from models.conversions import Credit
from models.errors import BadInput
from models.reports import Parts, pack
from models.rules import Rules
from models.settings import Settings
from streams import entities, previews, reports, versions
from streams.reference import rules_from
from streams.reports import Row
from streams.versions import LIVE
from streams.waiting import pausing

MOST_ACCOUNTS = 50_000
"""Beyond this many accounts a comparison leaves out which touches and conversions are affected."""


class Side(NamedTuple):
    """One version: its name as asked, its settings, its rows by period and value, its accounts' parts."""

    name: str
    settings: Settings
    rows: Mapping[tuple[str, Any], Row]
    accounts: Mapping[str, Parts]


async def compare(
    redis: Any, settings: Settings, *, names: Sequence[str], models: Sequence[str], by: str, **asked: Any
) -> Row:
    """{settings, progress, same_facts, affected: {touches, conversions}, rows} of two versions.

    Rows are {period, <by>: value, <model>: {old, new, difference: {count, amount}} …, currency};
    old is the first version named; a model that a version does not have is None there.
    `same_facts` is false while a preview has not read what live has; `affected` is None with
    more than MOST_ACCOUNTS accounts. Raises BadInput unless two versions are named, NotFound
    for one that does not exist.
    """
    old, new = await _two(redis, settings, names)
    _check_models(models, old, new)
    progress = [await _progress(redis, settings, name) for name in names]
    async with AsyncExitStack() as stack:
        is_same = min(progress) >= 0.999
        if is_same:
            token = await stack.enter_async_context(pausing(redis))
            await previews.same_facts(redis, old, new, token)
        sides = [
            await _side(redis, name, each, models=models, by=by, **asked)
            for name, each in zip(names, (old, new), strict=True)
        ]
    affected = await asyncio.to_thread(_affected, sides[0], sides[1], models)
    return {
        "settings": list(names),
        "progress": min(progress),
        "same_facts": is_same,
        "affected": affected,
        "rows": list(_rows(sides[0], sides[1], models, by)),
    }


async def _two(redis: Any, settings: Settings, names: Sequence[str]) -> tuple[Settings, Settings]:
    if len(set(names)) != 2:
        raise BadInput("settings", "two versions such as live,NAME", ",".join(names))
    one, two = [await versions.in_force(redis, settings, name) for name in names]
    return one, two


def _check_models(models: Sequence[str], old: Settings, new: Settings) -> None:
    known = dict.fromkeys((*every_model(old), *every_model(new)))
    for model in models:
        if model not in known:
            raise BadInput("models", f"one or more of {', '.join(known)}", model)


async def _progress(redis: Any, settings: Settings, name: str) -> float:
    return 1.0 if name in (LIVE, settings.lanes.version) else await previews.progress(redis, settings, name)


async def _side(redis: Any, name: str, settings: Settings, *, models: Sequence[str], by: str, **asked: Any) -> Side:
    known_models = [model for model in models if model in every_model(settings)]
    rows = await reports.compare(redis, settings, models=known_models, by=by, **asked) if known_models else []
    known = await entities.names_of(redis, settings, "account")
    accounts = await entities.parts_at_rest(redis, settings, known if len(known) <= MOST_ACCOUNTS else ())
    return Side(name, settings, {(row["period"], row[by]): row for row in rows}, accounts)


def _rows(old: Side, new: Side, models: Sequence[str], by: str) -> Iterator[Row]:
    for period, value in dict.fromkeys((*old.rows, *new.rows)):
        shares = {model: _shares(old, new, (period, value), model) for model in models}
        yield {"period": period, by: value, **shares, "currency": new.settings.currency}


def _shares(old: Side, new: Side, place: tuple[str, Any], model: str) -> Row:
    before, after = _share(old, place, model), _share(new, place, model)
    both = {name: after[name] - before[name] for name in after} if before and after else None
    return {"old": before, "new": after, "difference": both}


def _share(side: Side, place: tuple[str, Any], model: str) -> dict[str, int] | None:
    if model not in every_model(side.settings):
        return None
    share: dict[str, int] = side.rows[place][model] if place in side.rows else {"count": 0, "amount": 0}
    return share


# --- what is affected ---------------------------------------------------------------------


def _affected(old: Side, new: Side, models: Sequence[str]) -> dict[str, int] | None:
    """How many touches stand otherwise in the two, and how many conversions the models credit otherwise.

    Models that one of the versions does not have, or that are solved when read, do not count.
    """
    if not (old.accounts and new.accounts):
        return None
    both = [model for model in models if all(model in kept_models(side.settings) for side in (old, new))]
    before, after = _state_of(old, both), _state_of(new, both)
    return {"touches": _unlike(before[0], after[0]), "conversions": _unlike(before[1], after[1])}


def _unlike(some: Mapping[Any, Any], others: Mapping[Any, Any]) -> int:
    return sum(some.get(name) != others.get(name) for name in {*some, *others})


def _state_of(side: Side, models: Sequence[str]) -> tuple[dict[Any, bytes], dict[Any, Any]]:
    """Every touch as it stands, and the credits of every conversion."""
    rules = rules_from(side.settings)
    places = [2 * rules.models.index(model) for model in models]
    touches: dict[Any, bytes] = {}
    conversions: dict[Any, Any] = {}
    for name, parts in side.accounts.items():
        account = Account(name.partition(":")[2], parts, rules)
        if not account.parent:
            touches.update(((*touch.order[1:],), pack(touch)) for touch in account.dossier.journey.touches)
            conversions.update(all_credits(account.dossier))
    return touches, {key: [_plain(credit, places, rules) for credit in credits] for key, credits in conversions.items()}


def _plain(credit: Credit, places: Sequence[int], rules: Rules) -> tuple[Any, ...]:
    shares = credit.shares(rules)
    return credit.touch.order if credit.touch else None, [shares[place : place + 2] for place in places]
