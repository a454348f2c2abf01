"""Dead letters: records that were refused, with the reason and the original.

`{"id", "topic", "partition", "offset", "recordedAt", "lane", "where", "expected", "got",
"original": text, "originalBase64": only where the original is no UTF-8, or too long as text}`. The id names
the refused record, so that a letter sent twice is recognised. An alert that could not be delivered has the
lane `deliver`, its destination under `where`, and an id that ends in it.
"""

import base64

import orjson

from models.dispatch import Answer, Item
from models.lanes import Refusal
from models.times import to_text

LONGEST_BYTES = 32 * 1024 * 1024
"""Escapes may make text six times as long; base64 never more than a third longer."""


def dead_letter(refusal: Refusal, lane: str) -> bytes:
    """The letter as JSON."""
    record, error = refusal
    letter: dict[str, object] = {
        "id": f"{record.topic}:{record.partition}:{record.offset}",
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "recordedAt": to_text(record.recorded_at),
        "lane": lane,
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
    }
    written = orjson.dumps({**letter, **_original(record.value)})
    if len(written) <= LONGEST_BYTES:
        return written
    return orjson.dumps({**letter, **_as_base64(record.value or b"")})


def undelivered(item: Item, destination: str, answer: Answer) -> bytes:
    """The letter of an alert that a destination did not take in time."""
    letter: dict[str, object] = {
        "id": f"alerts:{item.alert_id}:{destination}",
        "topic": "alerts",
        "partition": item.partition,
        "offset": item.offset,
        "recordedAt": to_text(item.recorded_at),
        "lane": "deliver",
        "where": f"destinations.{destination}",
        "expected": "to be delivered in time",
        "got": answer.error or str(answer.status),
    }
    return orjson.dumps({**letter, **_original(item.alert)})


def _original(value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {"original": None}
    try:
        return {"original": value.decode()}
    except UnicodeDecodeError:
        return _as_base64(value)


def _as_base64(value: bytes) -> dict[str, str | None]:
    return {"original": None, "originalBase64": base64.b64encode(value).decode()}
