"""A batch as it is read: facts and messages of one partition's records."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from models import lanes
from models.lanes import Item, Refusal
from models.partitions import partition_of
from models.reports import Message
from models.rules import Rules
from streams.envelopes import opened
from streams.tables import Tables


class Intake(NamedTuple):
    """A batch's items, facts to forward, refusals, the next offsets and the envelope numbers heard."""

    items: list[Item]
    forwards: list[Message]
    refusals: list[Refusal]
    offsets: dict[str, int]
    seen: dict[str, int]
    facts: int
    records: int


def read(tables: Tables, records: Mapping[str, list[Any]], internal: str, rules: Rules) -> Intake:
    """The facts and messages among records by topic; facts of other partitions are to be sent on there.

    `internal` is the topic whose records are envelopes.
    """
    offsets = {topic: polled[-1].offset + 1 for topic, polled in records.items()}
    items: list[Item] = []
    refusals: list[Refusal] = []
    facts = 0
    for topic in records.keys() - {internal}:
        some, refused = lanes.read(topic, tables.partition, records[topic], rules)
        items += some
        refusals += refused
        facts += len(records[topic])
    items, forwards = _split(items, tables.partition, rules.settings.partitions)
    seen = dict(tables.book.seen)
    messages = [
        lanes.opened(message, rules)
        for record in records.get(internal, ())
        for message in opened(record.value, tables.book.run, seen)
    ]
    return Intake([*items, *messages], forwards, refusals, offsets, seen, facts, facts + len(messages))


def _split(items: list[Item], partition: int, partitions: int) -> tuple[list[Item], list[Message]]:
    """The facts of this partition, and those of others as messages to there."""
    mine = [item for item in items if partition_of(lanes.id_of(item.entity), partitions) == partition]
    if len(mine) == len(items):
        return mine, []
    strays = (item for item in items if partition_of(lanes.id_of(item.entity), partitions) != partition)
    return mine, [message for item in strays for message in lanes.forwards(item)]
