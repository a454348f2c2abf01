"""The three lanes as pure code: which entity a record is about, and one batch of it.

    visitors   hits ▶ sessions ▶ touches      a visitor reports to people
    members    people, touches and deals      a member reports to an account
    accounts   journeys and deals ▶ credits   an account reports to the one it merged into

`read` sorts a batch by entity, `step` applies it to the entities; both see no clock, no
network, no randomness.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from models.accounts import Account
from models.counts import add_counts
from models.customers import Customer
from models.deal_records import DealRecord
from models.decoding import decode, decode_view
from models.entity import Conflict, Outcome
from models.errors import BadInput
from models.facts import (
    ACCOUNT_CHANGES,
    BILLING,
    CONTACT_CHANGES,
    DEAL_CHANGES,
    FORM_FILLS,
    IDENTITIES,
    PAGE_VIEWS,
    PRODUCT_USAGE,
    TOUCHES,
    Fact,
    FormFill,
    Identification,
    Verdict,
    key_of,
)
from models.hits import Hit
from models.partitions import partition_of
from models.people import Person
from models.recorded import RecordedTouch
from models.reports import Changes, Forward, Message, Parts, stamped
from models.rolls import Roll, roll_of
from models.rules import Rules
from models.totals import Totals
from models.usage import Usage
from models.visitor_rules import VisitorRules
from models.visitors import Visitor

VISITOR_FACTS, MEMBER_FACTS, ACCOUNT_FACTS = "visitor-facts", "member-facts", "account-facts"
_ENTITY_OF_TOPIC = {
    PAGE_VIEWS: "visitor",
    FORM_FILLS: "visitor",
    IDENTITIES: "visitor",
    TOUCHES: "touch",
    CONTACT_CHANGES: "person",
    DEAL_CHANGES: "deal",
    BILLING: "deal",
    PRODUCT_USAGE: "usage",
    ACCOUNT_CHANGES: "account",
}
LANE_OF_ENTITY = {
    "visitor": "visitors",
    "roll": "visitors",
    "person": "members",
    "touch": "members",
    "usage": "members",
    "deal": "members",
    "account": "accounts",
    "customer": "accounts",
}

AnyEntity = Visitor | Roll | Person | RecordedTouch | Usage | DealRecord | Account | Customer


class Lane(NamedTuple):
    """A lane's name, the topics of facts it reads, and the topic of messages to it.

    `keeps_time`: to its entities something happens by itself as time passes.
    """

    name: str
    topics: tuple[str, ...]
    internal: str
    keeps_time: bool = False


LANES = {
    "visitors": Lane("visitors", (PAGE_VIEWS, FORM_FILLS, IDENTITIES), VISITOR_FACTS),
    "members": Lane("members", (TOUCHES, CONTACT_CHANGES, DEAL_CHANGES, BILLING, PRODUCT_USAGE), MEMBER_FACTS),
    "accounts": Lane("accounts", (ACCOUNT_CHANGES,), ACCOUNT_FACTS, keeps_time=True),
}


class Record(NamedTuple):
    """A fact as it lies in Kafka; `recorded_at` in microseconds."""

    topic: str
    partition: int
    offset: int
    recorded_at: int
    value: bytes | None


class Polled(Protocol):
    """A record of some topic and partition as Kafka's client hands it over; `timestamp` in milliseconds."""

    offset: int
    timestamp: int
    value: bytes | None


class Refusal(NamedTuple):
    """A record that is no fact, or does not stand, with the reason."""

    record: Record
    error: BadInput


class Views:
    """The page views of one visitor in a batch of a partition, in the order they came, and their records.

    `recorded_at` is when Kafka recorded the latest of them.
    """

    def __init__(self, partition: int, recorded_at: int) -> None:
        self.partition = partition
        self.recorded_at = recorded_at
        self.hits: list[Hit] = []
        self.records: list[Polled] = []


class Item:
    """A fact or message for one entity; of a visitor's page views, all of a batch."""

    def __init__(
        self, entity: str, topic: str, content: Fact | Hit | Message | Views, record: Record | None = None
    ) -> None:
        self.entity = entity
        self.topic = topic
        self.content = content
        self.record = record

    @property
    def recorded_at(self) -> int:
        """When Kafka recorded the fact, or the latest fact behind the message."""
        if self.record is not None:
            return self.record.recorded_at
        at: int = getattr(self.content, "recorded_at", 0)
        return at


@dataclass
class Batch:
    """Everything one commit makes durable."""

    changes: dict[str, Changes] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    refusals: list[Refusal] = field(default_factory=list)


def builder(rules: Rules) -> Callable[[str, Parts], AnyEntity]:
    """The function (entity, parts at rest) → the entity, under these rules."""
    of_visitors = VisitorRules(rules)
    kinds: dict[str, Callable[[str, Parts], AnyEntity]] = {
        "visitor": lambda name, parts: Visitor(name, parts, of_visitors),
        "roll": Roll,
        "person": lambda name, parts: Person(name, parts, rules),
        "touch": lambda name, parts: RecordedTouch(name, parts, rules),
        "usage": lambda name, parts: Usage(name, parts, rules),
        "deal": lambda name, parts: DealRecord(name, parts, rules),
        "account": lambda name, parts: Account(name, parts, rules),
        "customer": Customer,
    }

    def build(entity: str, parts: Parts) -> AnyEntity:
        kind, _, name = entity.partition(":")
        return kinds[kind](name, parts)

    return build


def entity_of(topic: str, fact: Fact) -> str:
    """The entity a fact is about, such as `visitor:…` or `deal:…`."""
    return f"{_ENTITY_OF_TOPIC[topic]}:{key_of(topic, fact)}"


def entities_of(topic: str, fact: Fact, partitions: int) -> list[str]:
    """The entities that take the fact: one, but every roll for a verdict on nobody knows whose messages."""
    if isinstance(fact, Verdict) and not fact.key:
        return [roll_of(partition, partitions) for partition in range(partitions)]
    return [entity_of(topic, fact)]


def id_of(entity: str) -> str:
    """The id whose partition the entity lives in."""
    return entity.partition(":")[2]


def lane_of(entity: str) -> str:
    """The lane that keeps the entity."""
    return LANE_OF_ENTITY[entity.partition(":")[0]]


def record_of(topic: str, partition: int, polled: Polled) -> Record:
    """The record of a topic's partition as it was polled."""
    return Record(topic, partition, polled.offset, polled.timestamp * 1000, polled.value)


def read(topic: str, partition: int, polled: Iterable[Polled], rules: Rules) -> tuple[list[Item], list[Refusal]]:
    """The facts of a batch by entity, and what had to be refused."""
    if topic == PAGE_VIEWS:
        return _read_views(partition, polled, rules)
    items: list[Item] = []
    refusals: list[Refusal] = []
    settings = rules.settings
    for record in (record_of(topic, partition, each) for each in polled):
        try:
            fact = decode(record.topic, record.value, record.recorded_at, settings, rules.is_bot)
        except BadInput as error:
            refusals.append(Refusal(record, error))
        else:
            items.extend(Item(entity, topic, fact, record) for entity in entities_of(topic, fact, settings.partitions))
    return items, refusals


def _read_views(partition: int, polled: Iterable[Polled], rules: Rules) -> tuple[list[Item], list[Refusal]]:
    """Page views by visitor: nine facts in ten, so nothing is made of each but the hit that the visitor keeps."""
    views: dict[str, Views] = {}
    refusals = []
    settings, is_bot, arrive = rules.settings, rules.is_bot, rules.arrive
    for record in polled:
        recorded_at = record.timestamp * 1000
        try:
            visitor, hit = decode_view(record.value, recorded_at, settings, is_bot, arrive)
        except BadInput as error:
            refusals.append(Refusal(record_of(PAGE_VIEWS, partition, record), error))
            continue
        mine = views.get(visitor)
        if mine is None:
            mine = views[visitor] = Views(partition, recorded_at)
        elif recorded_at > mine.recorded_at:
            mine.recorded_at = recorded_at
        mine.hits.append(hit)
        mine.records.append(record)
    return [Item(f"visitor:{name}", PAGE_VIEWS, each) for name, each in views.items()], refusals


def forwards(item: Item) -> list[Message]:
    """The facts of an item as messages to the partition they belong to."""
    if isinstance(item.content, Views):
        records = [record_of(item.topic, item.content.partition, each) for each in item.content.records]
    else:
        records = [item.record] if item.record else []
    return [
        Forward(item.entity, item.topic, each.value or b"", each.recorded_at, each.partition, each.offset)
        for each in records
    ]


def opened(message: Message, rules: Rules) -> Item:
    """A message as an item; a forwarded fact as the fact it is."""
    if not isinstance(message, Forward):
        return Item(message.to, "", message)
    record = Record(message.topic, message.partition, message.offset, message.recorded_at, message.value)
    given = message.value, message.recorded_at, rules.settings, rules.is_bot
    fact = decode_view(*given, rules.arrive)[1] if message.topic == PAGE_VIEWS else decode(message.topic, *given)
    return Item(message.to, message.topic, fact, record)


def sought_in(items: Iterable[Item]) -> set[str]:
    """The message ids that a batch's new verdicts speak of, whoever sent them."""
    verdicts = (item.content for item in items if isinstance(item.content, Verdict) and not item.content.key)
    return {message for verdict in verdicts for message in verdict.message_ids}


def step(items: Sequence[Item], entities: dict[str, AnyEntity], partitions: int = 1) -> Batch:
    """Apply a batch to its (loaded) entities; what it changes, says and refuses.

    Beside those that its items are about, the entities may be rolls of visitors, and
    visitors who may have sent what a new verdict speaks of.
    """
    batch = Batch()
    touched: dict[str, AnyEntity] = {}
    said: dict[str, Sequence[Message]] = {}
    for item in items:
        entity = touched[item.entity] = entities[item.entity]
        if isinstance(entity, Account):
            entity.hear(item.recorded_at)
        if isinstance(item.content, Views) and isinstance(entity, Visitor):
            _take_views(entity, item.content, batch.refusals)
        elif item.topic:
            conflict = entity.apply(item.topic, cast(Any, item.content))
            if conflict and item.record:
                batch.refusals.append(Refusal(item.record, refusal_of(conflict)))
        else:
            entity.receive(cast(Any, item.content))
    touched.update(_call_rolls(items, entities, partitions))
    for name, entity in touched.items():
        outcome = _flush(entity, batch.totals)
        if outcome.changes:
            batch.changes[name] = outcome.changes
        if outcome.messages:
            said[name] = outcome.messages
    recorded = _recorded(items, said)
    batch.messages = [stamped(each, recorded[name]) for name, messages in said.items() for each in messages]
    return batch


def _call_rolls(items: Iterable[Item], entities: Mapping[str, AnyEntity], partitions: int) -> dict[str, Roll]:
    """Tell the rolls of visitors' messages that a verdict speaks of; the rolls that there are."""
    rolls = {name: each for name, each in entities.items() if isinstance(each, Roll)}
    sought = {message for roll in rolls.values() for message in roll.sought}
    if sought:
        new = sought_in(items)
        sent = {(item.entity, message) for item in items for message in sought.intersection(_ids_in(item.content))}
        visitors = [(name, each) for name, each in entities.items() if isinstance(each, Visitor)]
        sent.update((name, message) for name, visitor in visitors for message in new if visitor.sent(message))
        for name, message in sorted(sent):
            roll = roll_of(partition_of(id_of(name), partitions), partitions)
            rolls[roll].hold(message, id_of(name))
    return rolls


def _ids_in(content: Fact | Hit | Message | Views) -> list[str]:
    """The ids of a visitor's messages that an item has."""
    match content:
        case Views():
            return [hit.id for hit in content.hits]
        case FormFill() | Identification() | Hit():  # a page view by itself was sent on from another partition
            return [content.id]
    return []


def _take_views(visitor: Visitor, views: Views, refusals: list[Refusal]) -> None:
    """Apply the page views of a visitor; those in conflict are added to what is refused."""
    for hit, conflict in visitor.apply_views(views.hits):
        record = next(record for each, record in zip(views.hits, views.records, strict=True) if each is hit)
        refusals.append(Refusal(record_of(PAGE_VIEWS, views.partition, record), refusal_of(conflict)))


def _recorded(items: Sequence[Item], names: Collection[str]) -> dict[str, int]:
    """When the latest fact behind what each of these entities heard was recorded."""
    recorded = dict.fromkeys(names, 0)
    for item in items if names else ():
        if item.entity in recorded:
            recorded[item.entity] = max(recorded[item.entity], item.recorded_at)
    for name in names:
        if name.startswith("roll:"):  # told of what others were sent
            recorded[name] = max([item.recorded_at for item in items])
    return recorded


def burden(entities: Iterable[AnyEntity]) -> int:
    """How many credits a step on these entities may have to compute, at the most."""
    return sum(entity.dossier.burden for entity in entities if isinstance(entity, Account))


def _flush(entity: AnyEntity, totals: Totals) -> Outcome:
    if isinstance(entity, Account):
        return entity.flush(totals)
    outcome = entity.flush()
    if outcome.counts:
        add_counts(totals.counts, outcome.counts)
    return outcome


def refusal_of(conflict: Conflict) -> BadInput:
    """Two different facts carried one id: the one with the smaller time and bytes stands."""
    where = f"{conflict.topic} {conflict.id}"
    return BadInput(where, "one fact an id", "another fact with this id; the earlier of the two stands")
