"""Envelopes: the messages of one commit for one partition, under consecutive numbers.

A receiver takes the next number of each sender and no other, so that a message counts once
however often it is sent.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from models import lanes
from models.partitions import partition_of
from models.reports import Message, pack, unpack_messages
from streams.tables import Book

log = logging.getLogger(__name__)

ENVELOPE_BYTES = 512 * 1024

Place = tuple[str, int]
"""A lane and its partition."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one commit for one partition; `number` counts the pair's envelopes from 1."""

    run: int
    lane: str
    partition: int
    number: int
    messages: msgspec.Raw


unpack_envelope = msgspec.msgpack.Decoder(Envelope).decode


def enveloped(
    messages: Iterable[Message], sender: Place, book: Book, partitions: int
) -> Iterator[tuple[str, int, Envelope]]:
    """The envelopes of a commit's messages with the topic and partition each is for; the sender's book counts them."""
    for (lane, partition), some in _by_place(messages, partitions).items():
        topic = lanes.LANES[lane].internal
        place = f"{topic}:{partition}"
        for portion in _portions(some):
            number = book.sent[place] = book.sent.get(place, 0) + 1
            yield topic, partition, Envelope(book.run, *sender, number, msgspec.Raw(portion))


def _by_place(messages: Iterable[Message], partitions: int) -> dict[Place, list[Message]]:
    places: dict[Place, list[Message]] = {}
    for message in messages:
        partition = partition_of(lanes.id_of(message.to), partitions)
        places.setdefault((lanes.lane_of(message.to), partition), []).append(message)
    return places


def _portions(messages: Sequence[Message]) -> list[bytes]:
    """The messages packed, in portions that fit a Kafka record: halved until they do."""
    packed = pack(messages)
    if len(packed) <= ENVELOPE_BYTES or len(messages) == 1:
        return [packed]
    middle = len(messages) // 2
    return [*_portions(messages[:middle]), *_portions(messages[middle:])]


def opened(value: bytes, run: int, seen: dict[str, int]) -> list[Message]:
    """The messages of an envelope when it is the next of its sender in this run, which `seen` then notes; else none."""
    envelope = unpack_envelope(value)
    source = f"{envelope.lane}:{envelope.partition}"
    expected = seen.get(source, 0) + 1
    if envelope.run != run or envelope.number < expected:
        return []
    if envelope.number > expected:
        log.warning("envelope %d of %s came before %d: it will be sent again", envelope.number, source, expected)
        return []
    seen[source] = envelope.number
    return unpack_messages(envelope.messages)
