"""What holds of warmth after a simulated run, whatever happened on the way: readings, ranks, what was told, alerts."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from models.alerting import id_of
from models.alerts import Alert, decode_alert
from models.course import COLD, STATES, History
from models.reading import Reading, Told
from models.warming import TOLD, next_of
from models.warmth import ahead, present, state_at
from streams.topics import ALERTS

if TYPE_CHECKING:
    from tests.simulation import Books, Simulation

_reading = msgspec.msgpack.Decoder(Reading).decode
_told = msgspec.msgpack.Decoder(Told).decode


def warmth_problems(after: "Simulation", batch: "Books") -> Iterator[str]:
    """In short, what of the accounts' warmth is not as the facts have it."""
    yield from _unlike_readings(after, batch.warmth)
    yield from _unranked(after)
    yield from _untold(after, batch)
    yield from _wrong_alerts(after, batch)


def alerts(after: "Simulation") -> list[Alert]:
    """Every alert in the topic."""
    return [decode_alert(value) for value in after.log.values(ALERTS)]


def readings(after: "Simulation") -> dict[str, Reading]:
    """The reading of each account that has one."""
    return {name.decode(): _reading(value) for name, value in _table(after, "warmth").items()}


def _table(after: "Simulation", table: str) -> dict[bytes, Any]:
    """A hash or sorted set of every accounts partition."""
    found = {}
    for key, value in after.store.keys.items():
        if key.startswith("{accounts:") and key.partition("}:")[2] == table:
            found.update(value)
    return found


def _unlike_readings(after: "Simulation", histories: dict[str, History]) -> Iterator[str]:
    clock, found = after.clock(), readings(after)
    for name in {*found, *histories}:
        history, reading = histories.get(name, ()), found.get(name)
        now, following = present(history, clock), next(ahead(history, clock), None)
        if reading is None:
            if history:
                yield f"{name} has no reading, but {history}"
            continue
        coming = next_of(reading, clock, after.rules.scale)
        got = reading.state, reading.since, reading.rewarmed, coming and coming.at
        expected = now.state if now else COLD, now and now.at, bool(now and now.rewarmed), following and following.at
        if got != expected:
            yield f"{name} reads {got}, not {expected}"


def _unranked(after: "Simulation") -> Iterator[str]:
    found = readings(after)
    for state in STATES:
        ranked = {name.decode() for name in _table(after, f"warm:{state}")}
        if ranked != (expected := {name for name, reading in found.items() if reading.state == state}):
            yield f"ranked as {state}: {ranked}, not {expected}"
    due = {name.decode(): int(at) for name, at in _table(after, "due").items()}
    for name, reading in found.items():
        coming = next_of(reading, after.clock(), after.rules.scale)
        if coming and due.get(name, coming.at + 1) > coming.at:
            yield f"{name} is due at {due.get(name)}, but {coming.name} at {coming.at}"


def _untold(after: "Simulation", batch: "Books") -> Iterator[str]:
    """What was told last of every account is its present state."""
    told = {name: _told(parts[TOLD]) for name, parts in after.entities("accounts", "account") if TOLD in parts}
    for name, history in batch.warmth.items():
        state = told.get(name, Told()).state
        if state != state_at(history, after.clock()):
            yield f"{name} was last told to be {state}, but is {state_at(history, after.clock())}"


def _wrong_alerts(after: "Simulation", batch: "Books") -> Iterator[str]:
    """None twice, and none lost of those foreseen when all facts were in."""
    sent = alerts(after)
    times = Counter(alert.alert_id for alert in sent)
    if not after.froze and (twice := [name for name, count in times.items() if count > 1]):
        yield f"sent more than once: {twice}"
    for name, history in batch.warmth.items():
        is_quiet = name in batch.companies and batch.companies[name][0].quiet
        for each in history:
            if not is_quiet and after.rested_at < each.at <= after.clock() and id_of(name, each) not in times:
                yield f"nobody was alerted that {name} {each.name} at {each.at}"
