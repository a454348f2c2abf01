"""Instants: integer microseconds since 1970, UTC; days in the reporting time zone."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from models.errors import BadInput

if TYPE_CHECKING:
    from mypy_extensions import i64

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
END_OF_TIME = 2**62
"""Later than any instant: what has been accepted once is read again without a bound on its time."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_parse_iso: Final = datetime.fromisoformat


def parse_instant(text: str, topic: str, field: str = "") -> int:
    """Microseconds of an ISO 8601 instant; without a zone it is UTC, nanoseconds are cut.

    Raises BadInput, naming the topic's field, when the text is no instant.
    """
    try:
        return to_micros(_from_iso(text))
    except (ValueError, OverflowError, TypeError):
        where = f"{topic}.{field}" if field else topic
        raise BadInput(where, "an ISO 8601 instant such as 2026-04-03T12:00:00Z", text) from None


def _from_iso(text: str) -> datetime:
    if "z" in text:
        text = text.replace("z", "Z")
    try:
        return _parse_iso(text)
    except ValueError:  # perhaps for nothing but blanks around it
        return _parse_iso(text.strip())


def to_micros(moment: datetime) -> int:
    """Integer microseconds of a datetime; a naive one is UTC."""
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    days: i64 = since.days
    seconds: i64 = since.seconds
    micros: i64 = since.microseconds
    return days * DAY + seconds * SECOND + micros


def to_datetime(at: int) -> datetime:
    """The instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at)


def to_text(at: int) -> str:
    """ISO 8601 in UTC with `Z`, fractions only where there are any."""
    return to_datetime(at).isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=65536)
def _day_of_hour(hour: int, zone: str) -> str:
    return to_datetime(hour).astimezone(ZoneInfo(zone)).date().isoformat()


def day_of(at: int, zone: str) -> str:
    """The day (YYYY-MM-DD) of an instant in the reporting time zone.

    Zones change their offset at quarters of an hour only, so a quarter has one day.
    """
    return _day_of_hour(at - at % (15 * MINUTE), zone)


def is_day(text: str) -> bool:
    """Is it a day, written YYYY-MM-DD?"""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@lru_cache(maxsize=65536)
def number_of(day: str) -> int:
    """The day's number, counted from the year 1: days between two days are a difference."""
    return date.fromisoformat(day).toordinal()


def day_numbered(number: int) -> str:
    """The day (YYYY-MM-DD) with this number."""
    return date.fromordinal(number).isoformat()


def end_of(day: str, zone: str) -> int:
    """The first instant after the day in the reporting time zone."""
    return to_micros(datetime.fromisoformat(day_numbered(number_of(day) + 1)).replace(tzinfo=ZoneInfo(zone)))
