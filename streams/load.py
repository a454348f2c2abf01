"""Loading files: rows become facts, facts go to Kafka, refused rows are told by their reasons.

A row is decoded just as a lane would decode it, so what is loaded will be counted. The ids
in the rows make loading the same file again harmless.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from models import decoding, facts
from models.errors import BadInput, NotFound
from models.partitions import partition_of
from models.settings import Settings
from streams import config, kafka_clients, topics
from streams.mapping import RowMap, plain_map, read_map
from streams.rows import RawRow, Rows

ROWS_PER_CHUNK = 500
BATCH_BYTES = 256 * 1024
EXAMPLES_SHOWN = 5

Advance = Callable[[int], None]
"""Told how many bytes of the files have been read since the last call."""

Record = tuple[str, bytes]
"""Key and value."""


class Refusal(msgspec.Struct, frozen=True):
    """A row that was not loaded, and why; its line counts from 1, the header included."""

    file: str
    line: int
    reason: str


class Loaded(msgspec.Struct, frozen=True):
    """How a load went: facts sent, rows refused, rows the map has no fact for."""

    topic: str
    loaded: int
    refused: int
    left_out: int
    seconds: float
    reasons: dict[str, int]
    examples: list[Refusal]


class Loading:
    """A load on its way: rows become records as the lanes will read them, and are counted."""

    def __init__(self, topic: str, settings: Settings) -> None:
        self._topic = topic
        self._settings = settings
        self._recorded_at = time.time_ns() // 1000
        self._started = time.monotonic()
        self._loaded = 0
        self._left_out = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[Refusal] = []

    def records(self, rows: "Opened", most: int) -> list[Record] | None:
        """The records of the next rows, refused ones counted instead; None at the end."""
        chunk = rows.file.chunk(most)
        if not chunk:
            return None
        records: list[Record] = []
        for line, raw in chunk:
            try:
                made = [(self._key(value), value) for value in rows.values(raw)]
            except BadInput as error:
                self._refuse(rows.file.name, line, error)
            else:
                records += made
                self._left_out += not made
        self._loaded += len(records)
        return records

    def result(self) -> Loaded:
        """The counts so far, the most frequent reason first."""
        return Loaded(
            topic=self._topic,
            loaded=self._loaded,
            refused=self._reasons.total(),
            left_out=self._left_out,
            seconds=round(time.monotonic() - self._started, 3),
            reasons=dict(self._reasons.most_common()),
            examples=self._examples,
        )

    def _key(self, value: bytes) -> str:
        fact = decoding.decode(self._topic, value, self._recorded_at, self._settings)
        return facts.key_of(self._topic, fact)

    def _refuse(self, file: str, line: int, error: BadInput) -> None:
        self._reasons[f"{error.where}: expected {error.expected}"] += 1
        if len(self._examples) < EXAMPLES_SHOWN:
            self._examples.append(Refusal(file, line, str(error)))


class Opened(NamedTuple):
    """An open file, and what its rows mean: the facts of a row, as JSON."""

    file: Rows
    values: Callable[[RawRow], list[bytes]]


class Sender:
    """Puts records in batches, one open batch a partition, and waits for Kafka's word on each."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings
        self._partitions: dict[str, int] = {}
        self._open: dict[tuple[str, int], Any] = {}
        self._sent: list[asyncio.Future[Any]] = []

    async def send(self, topic: str, records: Sequence[Record]) -> None:
        """Add records to their partitions' batches; waits while a partition's last batch waits."""
        partitions = self._partitions.get(topic) or await self._count(topic)
        for key, value in records:
            place = topic, partition_of(key, partitions)
            batch = self._open.get(place)
            if batch is None or batch.append(key=key.encode(), value=value, timestamp=None) is None:
                await self._submit(place)
                batch = self._open[place] = self._producer.create_batch()
                batch.append(key=key.encode(), value=value, timestamp=None)

    async def flush(self) -> None:
        """Submit every open batch and wait until all are acknowledged."""
        for place in list(self._open):
            await self._submit(place)
        await asyncio.gather(*self._sent)
        self._sent.clear()

    async def _count(self, topic: str) -> int:
        name = topics.full_name(self._settings, topic)
        cluster = await self._producer.client.fetch_all_metadata()
        if not (partitions := cluster.partitions_for_topic(name)):
            raise NotFound(f"Kafka has no topic {name}: `touchline topics --create` makes those that are missing")
        self._partitions[topic] = len(partitions)
        return len(partitions)

    async def _submit(self, place: tuple[str, int]) -> None:
        batch = self._open.pop(place, None)
        if batch is None:
            return
        batch.close()
        self._sent = [future for future in self._sent if not _acknowledged(future)]
        topic, partition = place
        name = topics.full_name(self._settings, topic)
        self._sent.append(await self._producer.send_batch(batch, name, partition=partition))


def _acknowledged(future: "asyncio.Future[Any]") -> bool:
    """Whether the batch is in Kafka; raises what went wrong with it."""
    return future.done() and future.result() is not None


async def load(
    settings: Settings,
    topic: str,
    files: Sequence[str],
    mapping: RowMap | None = None,
    progress: Advance = lambda read: None,
) -> Loaded:
    """Send the facts of the files to a topic, in their order, and wait for Kafka's word.

    Raises BadInput when a file cannot be read at all (missing, broken, without the columns
    the map names) or the topic takes no facts, NotFound when Kafka does not have the topic,
    Unavailable when it is away.
    """
    if topic not in facts.FACT_TOPICS:
        raise BadInput("topic", f"one of {', '.join(facts.FACT_TOPICS)}", topic)
    loading = Loading(topic, settings)
    with ExitStack() as closing:
        inputs = [open_rows(name, mapping, closing) for name in files]
        async with connected(settings) as sender:
            for rows in inputs:
                while (records := loading.records(rows, ROWS_PER_CHUNK)) is not None:
                    await sender.send(topic, records)
                    progress(rows.file.newly_read())
            await sender.flush()
    return loading.result()


def open_rows(name: str, mapping: RowMap | None, closing: ExitStack) -> Opened:
    """The file with what its rows mean; BadInput when the map names columns it has not."""
    file = Rows(name)
    closing.callback(file.close)
    if mapping is not None:
        _check_columns(file, mapping)
        return Opened(file, lambda raw: [_encode(fact) for fact in mapping.facts(file.as_dict(raw))])
    if file.columns is not None:
        fact_of = plain_map(file.columns)
        return Opened(file, lambda raw: [_encode(fact_of(file.as_dict(raw)))])
    return Opened(file, lambda raw: [raw])


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Sender]:
    """A sender that is connected to Kafka, whose errors leave as Unavailable."""
    options = {"acks": "all", "enable_idempotence": True, "max_batch_size": BATCH_BYTES}
    async with kafka_clients.producer(settings, **options) as producer:
        yield Sender(producer, settings)


def _check_columns(file: Rows, mapping: RowMap) -> None:
    if file.columns is None:
        return
    missing = sorted(mapping.columns - set(file.columns))
    if missing:
        raise BadInput(f"{file.name}: header", f"the columns of the map: {', '.join(missing)}", file.columns)


def _encode(fact: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fact)
    except UnicodeEncodeError:
        raise BadInput("row", "text in UTF-8", repr(fact)) from None


@click.command("load")
@click.argument("topic", type=click.Choice(facts.FACT_TOPICS), metavar="TOPIC")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--map", "map_file", metavar="MAP.toml", help="Which facts a row means.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a row is refused.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def load_command(topic: str, files: tuple[str, ...], map_file: str | None, strict: bool, style: str) -> None:
    """Load facts into TOPIC from CSV or JSON lines: plain, .gz, .zst, or - for standard input.

    Without a map, JSON lines are facts as they are, and CSV columns are their fields. Rows that
    are no valid facts are refused, told by reason and line, and left out.

    TOPIC is one of the topics of facts that `touchline topics` lists.
    """
    loaded = asyncio.run(_load_with_progress(config.load(), topic, files, map_file))
    _print(loaded, style)
    if strict and loaded.refused:
        raise SystemExit(1)


async def _load_with_progress(settings: Settings, topic: str, files: Sequence[str], map_file: str | None) -> Loaded:
    mapping = _read_map_file(map_file, topic) if map_file else None
    with _progress_bar(topic, files) as progress:
        return await load(settings, topic, files, mapping, progress)


def _read_map_file(name: str, topic: str) -> RowMap:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(name, "a mapping file that can be read", why) from error
    return read_map(text, topic, name)


@contextmanager
def _progress_bar(topic: str, files: Sequence[str]) -> Iterator[Advance]:
    """A bar of the files' bytes on standard error; silent when that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(topic, total=_total_bytes(files))
        yield lambda read: progress.advance(task, read)


def _total_bytes(files: Sequence[str]) -> int | None:
    """The bytes of all files; None when one of them is a pipe or missing."""
    paths = [Path(name) for name in files]
    return sum(path.stat().st_size for path in paths) if all(path.is_file() for path in paths) else None


def _print(loaded: Loaded, style: str) -> None:
    if style == "json":
        click.echo(msgspec.json.encode(loaded))
        return
    left_out = f", {_count(loaded.left_out, 'row')} left out by the map" if loaded.left_out else ""
    counts = f"{_count(loaded.loaded, 'fact')} loaded, {_count(loaded.refused, 'row')} refused{left_out}"
    click.echo(f"{loaded.topic}: {counts} ({loaded.seconds:.1f} s)")
    for reason, count in loaded.reasons.items():
        click.echo(f"  {count:,} × {reason}")
    for example in loaded.examples:
        click.echo(f"  {example.file}:{example.line}: {example.reason}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
