"""The product against the independent calculations, on generated inputs that sit on boundaries.

TOUCHLINE_EXAMPLES is how many inputs each comparison draws.
"""

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from models.catalogue import conversion_kinds
from models.counts import tables_in
from models.course import Transition
from models.flows import Period
from models.forecast import Forecast, spans_from
from models.funnel import stage_flows, velocities
from models.markov import removal_effects
from models.paths import CONVERTED, NULL, path_counts, table_of_paths
from models.profiles import NOBODY, compared
from models.reading import Told
from models.recompute import recompute
from models.rules import Rules
from models.settings import Pipeline, Settings, Warmth, parse_settings
from models.times import DAY, HOUR, MINUTE
from models.warming import Moved, news_of
from models.warmth import Scale, Touched, fixed, history_of
from streams.reference import rules_from
from tests import markets, oracle, oracle_accounts, oracle_forecast, oracle_models, oracle_warmth
from tests.oracle_forecast import as_decimal
from tests.test_recompute import by_model, oracle_settings
from tests.worlds import VARIANTS, RawFact, rules, without_ties, world

REGISTRABLE, FREE_MAIL = oracle.default_registrable(), oracle.default_free_mail()

EXAMPLES = int(os.environ.get("TOUCHLINE_EXAMPLES", "48"))
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
    ours = history_of(_weighed(touches), scale)
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

        for each in history_of(_weighed(touches), Scale(Warmth())):
            assert abs(Decimal(each.after) - oracle_warmth.score(touches, each.at)) < Decimal("1e-6"), seed
            if each.name in ("warming", "warmed"):
                [same] = [other for other in oracle_warmth.history(touches) if other.at == each.at]
                at, value = oracle_warmth.low_point(touches, same)
                assert each.low_at == at, (seed, each)
                assert abs(Decimal(each.low or 0) - value) < Decimal("1e-6"), seed


def arrivals(rng: random.Random) -> tuple[list[tuple[int, list[oracle_warmth.Push]]], int]:
    """An account's touches from each record time on: early, late, and withdrawn ones; and the present."""
    changes: list[tuple[int, list[oracle_warmth.Push]]] = []
    known: list[oracle_warmth.Push] = []
    clock = BEGIN
    for push in sorted(pushes(rng), key=lambda each: each.at + rng.choice((0, 0, 0, HOUR, DAY, DAY + 1, 20 * DAY))):
        late = rng.choice((0, 1, HOUR, DAY - 1, DAY, DAY + 1, 2 * DAY, -HOUR))
        clock = max(clock, push.at + late if rng.random() < 0.8 else clock)
        known = [*known[rng.random() < 0.1 :], push]
        changes.append((clock, known))
    return changes, clock + rng.choice((0, DAY, 14 * DAY, 60 * DAY))


def news(changes: list[tuple[int, list[oracle_warmth.Push]]], now: int) -> list[tuple[str, int]]:
    """The alerts that the product sends when it looks at every instant foreseen."""
    told, sent, scale = Told(), list[tuple[str, int]](), Scale(Warmth())
    was: tuple[Transition, ...] = ()
    clock = recorded_at = 0
    before: list[oracle_warmth.Push] = []
    for at, touches in [*changes, (now, None)]:
        grew = touches is None or set(before) <= set(touches)
        before = touches or before
        later = was if touches is None else history_of(_weighed(touches), scale)
        steps = [(each.at, was, recorded_at) for each in was if clock < each.at <= at]
        for moment, history, recorded in [*steps, (at, later, recorded_at if touches is None else at)]:
            for each in news_of(Moved(was, history, moment, recorded, grew), told, scale):
                sent += [(each.transition.name, each.transition.at)] * each.is_due
                told = told.after(each.transition) if each.is_due else told
                told = replace(told, state=each.transition.state)
            told = replace(told, clock=moment)
        was, clock, recorded_at = later, at, recorded_at if touches is None else at
    return sent


def _weighed(touches: list[oracle_warmth.Push]) -> list[Touched]:
    return sorted(Touched(each.at, each.person, fixed(float(each.weight)) // 64) for each in touches if each.weight)


def test_alerts_are_sent_as_the_rules_say() -> None:
    for seed in range(EXAMPLES):
        changes, now = arrivals(random.Random(seed))

        assert news(changes, now) == [(each.name, each.at) for each in oracle_warmth.alerts(changes, now)], seed


# --- forecast ---------------------------------------------------------------------------


def their_market(facts: list[RawFact], ours: Settings, day: str) -> oracle_forecast.Market:
    """What the independent calculation knows of the facts stamped before the day's end."""
    known, bodies = _before(facts, ours.time_zone, day)
    default = ours.pipelines.get("default", Pipeline())
    books = oracle.recompute(
        known,
        {
            "time_zone": ours.time_zone,
            "won_stages": list(default.won),
            "lost_stages": list(default.lost),
            "pipelines": {name: {"won": each.won, "lost": each.lost} for name, each in ours.pipelines.items()},
            "asked": [],
        },
        registrable=REGISTRABLE,
        free_mail=FREE_MAIL,
    )
    lead_of: dict[str, int] = {}
    for person in books.persons.values():
        lead_of[person["account"]] = min(person["lead"], lead_of.get(person["account"], person["lead"]))
    changes: dict[str, list[Any]] = {}
    refunds: dict[str, list[tuple[int, int]]] = {}
    for topic, body in bodies:
        at = oracle.instant(body["timestamp"], "timestamp")
        if topic == "deal-changes":
            changes.setdefault(body["dealId"], []).append((at, body["messageId"], _said(body)))
        if topic == "billing":
            refunds.setdefault(body["dealId"], []).append((at, _cents(body["amount"])))
    deals = []
    for name, said in changes.items():
        booked = books.deals[name]
        eligible = booked["opportunity"]["touches"] if "opportunity" in booked else []
        told = [(at, fields) for at, _, fields in sorted(said, key=lambda change: (change[0], change[1].encode()))]
        channel = eligible[0].channel if eligible else None
        deals.append(oracle_forecast.Deal(name, told, lead_of.get(booked["account"]), refunds.get(name, ()), channel))
    return oracle_forecast.Market(
        date.fromisoformat(day),
        deals,
        [person["lead"] for person in books.persons.values()],
        ours.time_zone,
        **{name: getattr(_pipeline(default), name) for name in ("won", "lost", "order", "probabilities")},
        pipelines={name: _pipeline(each) for name, each in ours.pipelines.items()},
        quality=(lambda deal: deal.first_channel) if ours.lead_quality == "first_channel" else None,
    )


def _before(facts: list[RawFact], zone: str, day: str) -> tuple[list[RawFact], list[tuple[str, dict[str, Any]]]]:
    end = oracle_forecast.Market(date.fromisoformat(day), [], zone=zone).begin_of(
        date.fromisoformat(day) + timedelta(days=1)
    )
    bodies = [(fact, json.loads(fact[1], parse_float=Decimal)) for fact in facts]
    known = [(fact, body) for fact, body in bodies if oracle.instant(body["timestamp"], "timestamp") < end]
    return [fact for fact, _ in known], [(fact[0], body) for fact, body in known]


def _said(body: dict[str, Any]) -> dict[str, Any]:
    said = dict(body)
    if said.get("amount") is not None:
        said["amount"] = _cents(said["amount"])
    for name in ("createdAt", "expectedClose"):
        if said.get(name) is not None:
            said[name] = oracle.instant(said[name], name)
    return said


def _cents(amount: Any) -> int:
    return int(Decimal(str(amount)) * 100)


def _pipeline(ours: Pipeline) -> oracle_forecast.Pipeline:
    chances = {stage: str(chance) for stage, chance in ours.probabilities.items()}
    return oracle_forecast.Pipeline(ours.won, ours.lost, ours.stages, chances)


def figures(ours: Forecast, theirs: oracle_forecast.Market, day: str) -> Iterator[tuple[str, Any, Any]]:
    """Every figure of a forecast: its name, what the product says, what the rules say."""
    rates, run = theirs.rates(), theirs.run_rate
    yield "win rate", ours.win_rate, rates["win_rate"] or 0
    yield "basis", ours.new_business.start == "lead", run["basis"] == "leads"
    yield "days to a win", ours.new_business.days, run["m"]
    yield "starts a day", ours.new_business.starts_a_day, run["rate"]
    yield "conversion", ours.new_business.conversion, run["c"]
    yield "average size", ours.new_business.size, run["z"]
    yield "average square", ours.new_business.square, run["squares"]
    yield "variation", ours.variation, theirs.unsteadiness
    yield "weighted", ours.weighted, theirs.weighted()
    yield "unpriced", ours.unpriced, sum(deal.now("amount") is None for deal in theirs.of("open"))
    for stage in {stay.stage for stay in theirs.stays}:
        for week in (0, 1, 5, 30, 60):
            if not theirs.fallback(stage[0]):
                chances = theirs.column(stage, min(week, theirs.last_week))
                for within in (1, 2, 10, 52):
                    yield f"{stage} {week} {within}", ours.counter.within(stage, week)[within], chances[within]
    for grain, months, number in (("month", 1, 14), ("quarter", 3, 3), ("year", 12, 2)):
        for span, outlook in zip(spans_from(day, grain, number), ours.outlooks(grain, number), strict=True):
            begin, end = date.fromordinal(span.first), date.fromordinal(span.last)
            forecast = theirs.forecast(begin, end, months)
            for part in ("pot", "pipeline", "new_business", "p10", "p50", "p90"):
                yield f"{span.name} {part}", getattr(outlook, part), forecast[part]


PERIODS = (None, (date(2025, 6, 1), date(2025, 9, 30)), (date(2026, 1, 15), date(2026, 3, 17)))


def flows(tables: Any, theirs: oracle_forecast.Market, law: Any, period: Any) -> Iterator[tuple[Any, Any, Any]]:
    """What happened in a period: its name, what the product says, what the rules say."""
    ours = Period() if period is None else Period(period[0].isoformat(), period[1].isoformat())
    rates = theirs.rates(period)
    for told in velocities(tables, "", ours)[:1]:
        yield "velocity", told.per_day, rates["velocity"]
        yield "size", told.average_size, rates["average_size"]
        yield "cycle", (told.cycle_median, told.cycle_mean), (rates["median_cycle"], rates["mean_cycle"])
        yield "closed", (told.open, told.won, told.lost), (len(theirs.of("open")), rates["won"], rates["lost"])
    moves, converted, open_deals = theirs.moves(period), theirs.stage_conversion(period), theirs.open_by_stage()
    for told in stage_flows(tables, ours, law):
        stage = (told.pipeline, told.stage)
        here = moves.pop(stage, {"entered": 0, "left": 0, "days": []})
        days = here["days"]
        spent = (oracle_forecast.median(days), oracle_forecast.p90(days)) if days else (None, None)
        yield (stage, "moves"), (told.entered, told.left), (here["entered"], here["left"])
        yield (stage, "days"), (told.median_days, told.p90_days), spent
        yield (stage, "open"), told.open, open_deals.get(stage, {"count": 0})["count"]
        if stage in converted:
            yield (stage, "converted"), (told.deals, told.converted), converted[stage]
    yield "other stages", [], list(moves)


def test_what_happened_in_a_period_is_what_the_rules_say() -> None:
    for seed in range(EXAMPLES // 4):
        settings = markets.VARIANTS[seed % len(markets.VARIANTS)]
        facts = markets.market(random.Random(seed), pipelines=(None, "partner") if settings.pipelines else (None,))
        law = rules_from(settings)
        theirs = their_market(facts, settings, markets.LAST_DAY)
        tables = tables_in(recompute(facts, law).counts)
        for period in PERIODS:
            for name, said, right in flows(tables, theirs, law, period):
                assert said == right, (seed, period, name)


def test_pipeline_and_forecast_are_those_of_the_rules() -> None:
    for seed in range(EXAMPLES // 4):
        rng = random.Random(seed)
        settings = markets.VARIANTS[seed % len(markets.VARIANTS)]
        facts = markets.market(rng, pipelines=(None, "partner") if settings.pipelines else (None,))
        law = rules_from(settings)
        theirs = their_market(facts, settings, markets.LAST_DAY)
        tables = tables_in(recompute(facts, law).counts)
        ours = Forecast(tables, markets.LAST_DAY, law)

        for name, said, right in figures(ours, theirs, markets.LAST_DAY):
            error = abs(Decimal(said) - as_decimal(right))
            assert error <= max(Decimal("1e-9"), abs(as_decimal(right)) * Decimal("1e-12")), (seed, name, said, right)


# --- models of the settings -------------------------------------------------------------

TABLES = {
    "kinds": ("call", "Web session", "form_fill", "demo", "Email Opened"),
    "teams": ("sales", "marketing", "product", "success"),
    "channels": ("email", "direct", "paid_search", "event", "sales_outbound", "referral"),
    "roles": ("buyer", "champion", "none", "user"),
    "stages": ("awareness", "consideration", "decision"),
}


def custom_model(rng: random.Random) -> dict[str, Any]:
    """A model of one's own: any positions, factors, decay and caps, zeros among them."""
    model: dict[str, Any] = {}
    if rng.random() < 0.6:
        places = rng.sample(("first", "last", "lead", "opportunity", "close", "rest"), rng.randint(1, 5))
        model["positions"] = {place: rng.choice((0, 1, 10, 22.5, 40, "33.3")) for place in places} | {places[0]: 7}
    for table, values in TABLES.items():
        if rng.random() < 0.3:
            picked = rng.sample(values, rng.randint(1, 3))
            model[table] = {value: rng.choice((0, 0, 0.5, 1, "1.25", 3)) for value in picked}
            model[table] |= {"default": rng.choice((0, 0.5, 2))} if rng.random() < 0.5 else {}
    if rng.random() < 0.3:
        model["decay"] = {"half_life_days": rng.choice((0.5, 7, 13.7))}
    if rng.random() < 0.5:
        by = rng.choice(("touch", "kind", "team", "channel", "role", "stage"))
        model["caps"] = {"by": by, "max": rng.choice((5, 33.3, 50, 100))}
        values = TABLES.get(f"{by}s", ())[:2]
        if values and rng.random() < 0.5:
            model["caps"]["values"] = rng.choice((list(values), {value: 10 for value in values}))
    return model


def test_models_of_the_settings_are_those_of_the_rules() -> None:
    for seed in range(EXAMPLES):
        rng = random.Random(seed)
        told = {"models": {f"own{number}": custom_model(rng) for number in range(4)}, "conversion_stages": ["demo"]}
        law = rules_from(parse_settings(told))
        facts = without_ties(world(random.Random(seed), 40))
        asked = [name for name in law.models if name.startswith("own")]

        theirs = oracle.recompute(
            facts, {**oracle_settings(law), "asked": asked}, registrable=REGISTRABLE, free_mail=FREE_MAIL
        )

        assert by_model(recompute(facts, law).cells, law, asked) == theirs.credits, (seed, told)


# --- Markov -----------------------------------------------------------------------------


def test_removal_effects_of_counted_paths_are_those_of_the_chain() -> None:
    for seed in range(EXAMPLES):
        rng, order = random.Random(seed), 1 + seed % 3
        channels = [f"channel {number}" for number in range(rng.choice((2, 4, 8)))]
        counted: dict[str, int] = {}
        chain = oracle_models.Chain(order)
        for _ in range(rng.choice((3, 30, 100))):
            path = [rng.choice(channels) for _ in range(rng.choice((1, 2, 3, 6, 12)))]
            times, converted = rng.choice((1, 1, 50)), rng.random() < rng.choice((0.02, 0.3))
            chain.add(path, times if converted else 0, 0 if converted else times)
            for count, (number,) in path_counts("won", path, CONVERTED if converted else NULL, order):
                counted[count.field] = counted.get(count.field, 0) + number * times

        theirs = {channel: int(effect * 10**12) for channel, effect in chain.effects().items()}

        assert removal_effects(counted, order) == theirs, seed


def their_paths(theirs: oracle.Books, settings: dict[str, Any]) -> dict[str, tuple[list[list[str]], list[list[str]]]]:
    """The paths of each kind of conversion as the independent calculation has them: converted ones and null ones."""
    found: dict[str, tuple[list[list[str]], list[list[str]]]] = {}

    def add(kind: str, touches: list[oracle.Touch], null: bool) -> None:
        if touches:
            found.setdefault(kind, ([], []))[null].append([touch.channel or "" for touch in touches])

    def lookback(kind: str) -> int:
        days = settings["lookback_days"]
        return int(days.get(kind, days["stage"])) * DAY

    kinds = ["opportunity", "won", *(f"stage:{stage}" for stage in settings["conversion_stages"])]
    moments: dict[tuple[str, str], list[int]] = {}
    for lead in theirs.leads.values():
        add("lead", lead["touches"], False)
    for deal in theirs.deals.values():
        for kind in kinds:
            if kind in deal:
                add(kind, deal[kind]["touches"], False)
                moments.setdefault((deal["account"], kind), []).append(deal[kind]["moment"])
    for touches in theirs.unknown.values():
        add("lead", oracle_models.null_path(touches, [], lookback("lead")), True)
    for account, touches in theirs.journeys.items():
        for kind in kinds:
            add(kind, oracle_models.null_path(touches, moments.get((account, kind), []), lookback(kind)), True)
    return found


def test_paths_and_null_paths_are_those_of_the_rules() -> None:
    for seed in range(EXAMPLES):
        variant = seed % VARIANTS
        law = rules(variant)
        facts = without_ties(world(random.Random(seed), seed % 40))
        settings = oracle_settings(law)
        theirs = oracle.recompute(facts, settings, registrable=REGISTRABLE, free_mail=FREE_MAIL)
        tables, paths = tables_in(recompute(facts, law).counts), their_paths(theirs, settings)
        for kind in conversion_kinds(law.settings):
            counted = {field: number for field, (number,) in tables.get(table_of_paths(kind), {}).items()}
            chain = oracle_models.chain_of(law.settings.markov_order, *paths.get(kind, ([], [])))
            effects = chain.effects() if chain.counts else {}
            ours = removal_effects(counted, law.settings.markov_order) if counted else {}

            assert ours == {channel: int(effect * 10**12) for channel, effect in effects.items()}, (seed, kind)
            assert sum(counted.values()) == sum(chain.counts.values()), (seed, kind)


# --- accounts ---------------------------------------------------------------------------


def their_profiles(facts: list[RawFact], variant: int) -> dict[str, dict[str, Any]]:
    settings = {**oracle.DEFAULTS, **oracle_settings(rules(variant))}
    reader = oracle.Reader(settings, REGISTRABLE)
    accepted = []
    for index, (topic, value, recorded_at) in enumerate(facts):
        with suppress(oracle.Refused):
            accepted.append(reader.read(topic, index, value, recorded_at))
    standing = oracle.standing(accepted, oracle.Books())
    return oracle_accounts.profiles(standing, oracle.Accounts(standing, reader))


def test_accounts_have_the_attributes_that_the_rules_say() -> None:
    nobody = {"name": None, "parent": None, "quiet": False, "attributes": {}}
    for seed in range(EXAMPLES):
        facts = world(random.Random(seed), 40)
        companies = recompute(facts, rules(seed % VARIANTS)).companies
        theirs = their_profiles(facts, seed % VARIANTS)
        for account in companies.keys() | theirs.keys():
            ours = companies[account][0] if account in companies else NOBODY
            right = theirs.get(account, nobody)
            attributes = {name: compared(name, value) for name, value in ours.attributes.items()}

            assert (ours.name, ours.parent, ours.quiet) == (right["name"], right["parent"], right["quiet"]), seed
            assert attributes == {
                name: oracle_accounts.compared(name, value) for name, value in right["attributes"].items()
            }, seed


def test_a_size_is_compared_by_its_band() -> None:
    for size in (1, 10, 11, 50, 51, 200, 201, 1000, 1001, 5000, 5001):
        assert compared("size", size) == oracle_accounts.compared("size", size)


def test_accounts_warm_and_cool_as_the_rules_say() -> None:
    for seed in range(EXAMPLES):
        law = rules(seed % VARIANTS)
        facts = without_ties(world(random.Random(seed), 40))
        books = recompute(facts, law)
        theirs = oracle.recompute(
            facts, {**oracle_settings(law), "asked": []}, registrable=REGISTRABLE, free_mail=FREE_MAIL
        )
        ours = {account: [(each.at, each.name) for each in history] for account, history in books.warmth.items()}

        assert {account: told for account, told in ours.items() if told} == {
            account: told
            for account, touches in theirs.journeys.items()
            if (told := [(each.at, each.name) for each in their_warmth(touches, law)])
        }, seed


def their_warmth(touches: list[oracle.Touch], law: Rules) -> list[Any]:
    """An account's transitions."""
    warmth = law.settings.warmth
    own = {kind.replace(" ", "_"): int(weight) for kind, weight in warmth.weights.items()}
    weights = {**oracle_warmth.WEIGHTS, **own}
    thresholds = (Decimal(str(each)) for each in (warmth.warm, warmth.warming, warmth.cooling, warmth.cold))
    scale = oracle_warmth.Law(Decimal(str(warmth.half_life_days)) * DAY, 30 * DAY, *thresholds)
    weighed = [
        oracle_warmth.Push(
            each.at,
            oracle_warmth.weight_of(each, weights),
            each.owner or "",
            each.id,
        )
        for each in touches
    ]
    return oracle_warmth.history(weighed, scale)
