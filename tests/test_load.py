"""Files become facts in Kafka; rows that are no facts are told by line and reason."""

import asyncio
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zstandard
from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import CliRunner, Result

from models.errors import BadInput, NotFound, Unavailable
from models.settings import Kafka, Settings
from streams import config, embedded, topics
from streams.cli import main
from streams.load import Loading, load, open_rows
from streams.mapping import read_map
from streams.rows import Rows

TOUCH_MAP = """
[[fact]]
fields = { touchId = "call-{id}", person = "email", kind = { constant = "call" }, timestamp = "at" }
"""


def touch(number: int, **changes: Any) -> dict[str, Any]:
    fields = {
        "touchId": f"call-{number}",
        "person": "ada@x.example",
        "kind": "call",
        "timestamp": "2026-01-01T00:00:00Z",
    }
    return {**fields, **changes}


def json_lines(*facts: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(fact).encode() + b"\n" for fact in facts)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def all_rows(file: str) -> list[tuple[int, Any]]:
    rows = Rows(file)
    try:
        found = []
        while chunk := rows.chunk(2):
            found += chunk
        return found
    finally:
        rows.close()


def values_of(file: str, topic: str = "touches", map_text: str | None = None) -> tuple[list[Any], Loading]:
    """The facts that a file yields, without Kafka, and the load's counts."""
    loading = Loading(topic, Settings())
    found: list[Any] = []
    with ExitStack() as closing:
        opened = open_rows(file, read_map(map_text, topic) if map_text else None, closing)
        while (records := loading.records(opened, 2)) is not None:
            found += [json.loads(value) for _, value in records]
    return found, loading


# ---- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_the_first_bytes_tell_how_a_file_is_packed_and_written(tmp_path: Path, pack: Any) -> None:
    lines = write(tmp_path / "lines", pack(b'\xef\xbb\xbf{"a": 1}\n\n  {"a": 2}\r\n'))
    table = write(tmp_path / "table", pack(b'\xef\xbb\xbfa;b\r\n1;"x\ny"\r\n\r\n2;z'))

    assert all_rows(lines) == [(1, b'{"a": 1}'), (3, b'{"a": 2}')]
    assert all_rows(table) == [(3, ["1", "x\ny"]), (5, ["2", "z"])]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_tells_the_separator(tmp_path: Path, separator: str) -> None:
    file = write(tmp_path / "table.csv", separator.join("abc").encode() + b"\n" + separator.join("123").encode())

    assert all_rows(file) == [(2, ["1", "2", "3"])]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_file_that_is_cut_off_is_an_error_and_not_the_end(tmp_path: Path, pack: Any) -> None:
    packed = pack(b"".join(json_lines(touch(number)) for number in range(50_000)))
    file = write(tmp_path / "cut", packed[: len(packed) // 2])

    with pytest.raises(BadInput, match=r"cut:\d+: expected a file that is whole from here on"):
        all_rows(file)


def test_frames_of_zstd_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    file = write(tmp_path / "frames", zstandard.compress(b'{"a": 1}\n') + zstandard.compress(b'{"a": 2}\n'))

    assert [raw for _, raw in all_rows(file)] == [b'{"a": 1}', b'{"a": 2}']


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert all_rows(write(tmp_path / "empty", b"")) == []


# ---- rows to facts ---------------------------------------------------------------------------


def test_rows_that_are_no_facts_are_counted_by_reason_and_told_by_line(tmp_path: Path) -> None:
    good, far = touch(1), touch(2, timestamp="2999-01-01T00:00:00Z")
    file = write(tmp_path / "f", json_lines(good, far) + b"{broken\n[1]\n" + json_lines({"touchId": "x"}, far))

    values, loading = values_of(file)

    loaded = loading.result()
    assert values == [good]
    assert (loaded.loaded, loaded.refused, loaded.left_out) == (1, 5, 0)
    assert [example.line for example in loaded.examples] == [2, 3, 4, 5, 6]
    assert next(iter(loaded.reasons.items()))[1] == 2
    assert next(iter(loaded.reasons)).startswith("touches.timestamp: expected an instant up to 24 h after")


def test_cells_that_do_not_fit_the_header_or_are_no_utf8_are_refused(tmp_path: Path) -> None:
    header, good = b"id,email,at", b"1,ada@x.example,2026-01-01"
    file = write(tmp_path / "f.csv", b"\n".join([header, good, b"2,b@x.example", b"3,\xff@x.example,2026-01-01"]))

    values, loading = values_of(file, map_text=TOUCH_MAP)

    assert [value["touchId"] for value in values] == ["call-1"]
    assert list(loading.result().reasons) == ["row: expected 3 cells as in the header", "row: expected text in UTF-8"]


def test_a_row_of_several_facts_is_taken_or_refused_as_a_whole(tmp_path: Path) -> None:
    text = TOUCH_MAP + TOUCH_MAP.replace("call-", "again-").replace(
        "[[fact]]", '[[fact]]\nwhere = [{column = "at", present = true}]'
    )
    file = write(tmp_path / "f.csv", b"id,email,at\n1,a@x.example,2026-01-01\n2,a@x.example,soon\n")

    values, loading = values_of(file, map_text=text)

    assert [value["touchId"] for value in values] == ["call-1", "again-1"]
    assert (loading.result().loaded, loading.result().refused) == (2, 1)


def test_rows_without_any_fact_are_left_out_and_counted(tmp_path: Path) -> None:
    text = TOUCH_MAP.replace("[[fact]]", '[[fact]]\nwhere = [{column = "id", in = ["2"]}]')
    file = write(tmp_path / "f.csv", b"id,email,at\n1,a@x.example,2026-01-01\n2,a@x.example,2026-01-01\n")

    values, loading = values_of(file, map_text=text)

    assert [value["touchId"] for value in values] == ["call-2"]
    assert loading.result().left_out == 1


def test_a_csv_without_a_map_has_a_column_for_each_field(tmp_path: Path) -> None:
    header = b"dealId,messageId,timestamp,contacts,amount,deleted"
    file = write(tmp_path / "f.csv", header + b'\nD1,m1,2026-01-01,"[""a@x.example""]",12.5,false\n')

    values, loading = values_of(file, "deal-changes")

    assert values[0]["contacts"] == ["a@x.example"]
    assert loading.result().refused == 0


# ---- to Kafka --------------------------------------------------------------------------------


async def records_of(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic, by partition and offset."""
    consumer = AIOKafkaConsumer(**config.kafka_options(settings), max_partition_fetch_bytes=16 * 1024 * 1024)
    await consumer.start()
    try:
        parts = [TopicPartition(topics.full_name(settings, topic), number) for number in range(settings.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        wanted = sum((await consumer.end_offsets(parts)).values())
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < wanted:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
        return found
    finally:
        await consumer.stop()


async def test_facts_reach_kafka_under_their_keys_in_the_order_of_the_file(settings: Settings, tmp_path: Path) -> None:
    await topics.create_topics(settings)
    views = [
        {"type": "page", "messageId": f"m{n}", "anonymousId": f"v{n % 7}", "timestamp": "2026-01-01T00:00:00Z"}
        for n in range(5_000)
    ]
    file = write(tmp_path / "views.jsonl.zst", zstandard.compress(json_lines(*views)))
    read: list[int] = []

    loaded = await load(settings, "page-views", [file], progress=read.append)

    records = await records_of(settings, "page-views")
    assert loaded.loaded == 5_000
    assert sum(read) == Path(file).stat().st_size
    for visitor in range(7):
        of_visitor = [
            json.loads(record.value)["messageId"] for record in records if record.key == f"v{visitor}".encode()
        ]
        assert of_visitor == [f"m{n}" for n in range(visitor, 5_000, 7)]
    assert len({(record.key, record.partition) for record in records}) == 7


async def test_a_fact_larger_than_a_batch_is_loaded_and_one_above_the_limit_refused(
    settings: Settings, tmp_path: Path
) -> None:
    await topics.create_topics(settings)
    large, too_large = touch(1, note="x" * 2_000_000), touch(2, note="x" * settings.max_fact_bytes)
    file = write(tmp_path / "f", json_lines(touch(0), large, too_large, touch(3)))

    loaded = await load(settings, "touches", [file])

    assert (loaded.loaded, loaded.refused) == (3, 1)
    assert {record.key for record in await records_of(settings, "touches")} == {b"call-0", b"call-1", b"call-3"}


async def test_kafka_away_is_told_as_such(tmp_path: Path) -> None:
    file = write(tmp_path / "f", json_lines(touch(1)))
    settings = Settings(kafka=Kafka(bootstrap=f"127.0.0.1:{embedded.free_port()}"))

    with pytest.raises(Unavailable, match="Kafka at 127.0.0.1"):
        await load(settings, "touches", [file])


async def test_a_topic_that_does_not_exist_is_told_soon(settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path / "f", json_lines(touch(1)))
    started = time.monotonic()

    with pytest.raises(NotFound, match="touchline topics"):
        await load(settings, "touches", [file])
    assert time.monotonic() - started < 5


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    """What the command needs to find the test's Kafka."""
    asyncio.run(topics.create_topics(settings))
    (tmp_path / "settings.toml").write_text(f'topic_prefix = "{settings.topic_prefix}"')
    return {
        "TOUCHLINE_KAFKA": settings.kafka.bootstrap,
        "TOUCHLINE_REDIS": settings.redis.url,
        "TOUCHLINE_CONFIG": str(tmp_path / "settings.toml"),
    }


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> Result:
    return CliRunner().invoke(main, ["load", *arguments], env=dict(environment))


def test_the_command_says_how_many_were_loaded_and_why_others_were_not(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = write(tmp_path / "calls.jsonl", json_lines(touch(1), {"touchId": "x"}))

    shown = command(["touches", file], environment)
    as_json = command(["touches", file, "--format", "json"], environment)
    strict = command(["touches", file, "--strict"], environment)

    assert shown.output.startswith("touches: 1 fact loaded, 1 row refused")
    assert f"{file}:2: touches.timestamp: expected a value" in shown.output
    assert json.loads(as_json.output)["examples"][0]["line"] == 2
    assert (shown.exit_code, as_json.exit_code, strict.exit_code) == (0, 0, 1)


def test_the_command_reads_standard_input(environment: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    map_file = write(tmp_path / "map.toml", TOUCH_MAP.encode())
    run = [sys.executable, "-m", "streams.cli", "load", "touches", "-", "--map", map_file]

    done = subprocess.run(
        run, input=b"id,email,at\n1,a@x.example,2026-01-01\n", env=environment, capture_output=True, check=True
    )

    assert done.stdout.startswith(b"touches: 1 fact loaded, 0 rows refused")
    assert done.stderr == b""
    assert [record.key for record in asyncio.run(records_of(settings, "touches"))] == [b"call-1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["touches", "missing.csv"], "missing.csv: expected a file that can be read"),
        (["touches", "good.csv", "--map", "missing.toml"], "missing.toml: expected a mapping file"),
        (["touches", "good.csv", "--map", "broken.toml"], "broken.toml: expected a TOML file"),
        (
            ["touches", "other.csv", "--map", "map.toml"],
            "other.csv: header: expected the columns of the map: at, email",
        ),
        (["sessions", "good.csv"], "'sessions' is not one of"),
    ],
)
def test_what_cannot_be_read_at_all_ends_with_two_and_says_why(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.csv").write_text("id,email,at\n1,a@x.example,2026-01-01\n")
    Path("other.csv").write_text("id,mail\n1,a@x.example\n")
    Path("map.toml").write_text(TOUCH_MAP)
    Path("broken.toml").write_text("[[fact")

    result = command(arguments, {"TOUCHLINE_KAFKA": "127.0.0.1:1"})

    assert words in result.output
    assert result.exit_code == 2
