"""Dead letters: records that were refused, with the reason and the original.

`{"id", "topic", "partition", "offset", "recordedAt", "lane", "where", "expected", "got",
"original": text, "originalBase64": only where the original is no UTF-8}`. The id names
the refused record, so that a letter sent twice is recognised.
"""

import base64

import orjson

from models.lanes import Refusal
from models.times import to_text


def dead_letter(refusal: Refusal, lane: str) -> bytes:
    """The letter as JSON."""
    record, error = refusal
    letter = {
        "id": f"{record.topic}:{record.partition}:{record.offset}",
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "recordedAt": to_text(record.recorded_at),
        "lane": lane,
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
        **_original(record.value),
    }
    return orjson.dumps(letter)


def _original(value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {"original": None}
    try:
        return {"original": value.decode()}
    except UnicodeDecodeError:
        return {"original": None, "originalBase64": base64.b64encode(value).decode()}
