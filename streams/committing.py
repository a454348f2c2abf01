"""All that a batch makes durable, in one commit: state, totals, alerts, outbox, and where the partition stands."""

from typing import NamedTuple

from models.lanes import Batch
from streams.reading import Intake
from streams.tables import Book, Tables


class Commit(NamedTuple):
    """A stepped batch, what it announces and says, and how many of the outbox before it are in Kafka."""

    batch: Batch
    alerts: list[bytes]
    outbox: list[bytes]
    published: int


async def commit(tables: Tables, made: Commit, intake: Intake, paused: str) -> None:
    """Make durable what came of the intake, and that it was taken. Raises Fenced: another owns the partition."""
    for name, changes in made.batch.changes.items():
        tables.put(name, changes)
    await tables.put_totals(made.batch.totals)
    tables.put_alerts(made.alerts)
    tables.trim_outbox(made.published)
    tables.put_outbox(made.outbox)
    tables.put_book(_standing(tables.book, intake, paused))
    await tables.commit()


async def settle(tables: Tables, published: int, paused: str) -> None:
    """Nothing to do: make durable what is published, and that the lane stands still if it shall."""
    tables.trim_outbox(published)
    tables.put_book(_pause(paused))
    await tables.commit()


def _standing(book: Book, intake: Intake, paused: str) -> dict[str, int | str]:
    """The book's fields after this intake, which it notes."""
    book.offsets.update(intake.offsets)
    book.seen.update(intake.seen)
    fields: dict[str, int | str] = {f"offset:{topic}": offset for topic, offset in intake.offsets.items()}
    fields.update({f"seen:{source}": number for source, number in intake.seen.items()})
    fields.update({f"sent:{place}": number for place, number in book.sent.items()})
    return fields | _pause(paused)


def _pause(paused: str) -> dict[str, str]:
    return {"paused": paused} if paused else {}
