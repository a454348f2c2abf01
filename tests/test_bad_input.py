"""Bad input on real servers: each record becomes a dead letter, and what comes after it counts."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from models.partitions import partition_of
from models.settings import Settings
from streams.config import kafka_options
from streams.topics import full_name
from tests.running import Place

pytestmark = pytest.mark.slow

PARTITIONS = 3
TEN_MEGABYTES = 10 * 1024 * 1024
AT = "2026-03-01T12:00:00Z"
FAR = (datetime.now(UTC) + timedelta(days=3)).isoformat()

Json = dict[str, Any]


class Bad(NamedTuple):
    """A record that is no fact: what is wrong with it, and where the letter says so."""

    name: str
    topic: str
    value: bytes | None
    where: str
    expected: str = ""


def page(**changes: Any) -> bytes:
    """A page view but for the changes."""
    body = {"type": "page", "messageId": "m", "timestamp": AT, "anonymousId": "v", **changes}
    return json.dumps(body).encode()


def deal(**changes: Any) -> bytes:
    """A deal change but for the changes."""
    body = {"dealId": "d", "messageId": "m", "timestamp": AT, "account": "acme.com", **changes}
    return json.dumps(body).encode()


def refund(**changes: Any) -> bytes:
    """A refund but for the changes."""
    body = {"type": "refund", "dealId": "d", "messageId": "m", "timestamp": AT, "amount": 1, **changes}
    return json.dumps(body).encode()


BAD = (
    Bad("an empty record", "page-views", b"", "page-views"),
    Bad("a record without value", "page-views", None, "page-views", "a JSON object"),
    Bad("broken JSON", "page-views", b'{"messageId": "m", ', "page-views"),
    Bad("text behind the JSON", "page-views", page() + b" and more", "page-views"),
    Bad("a JSON list", "identities", b"[1, 2]", "identities", "object"),
    Bad("JSON null", "deal-changes", b"null", "deal-changes", "object"),
    Bad("no UTF-8", "page-views", page().replace(b'"v"', b'"\xff\xfe"'), "page-views"),
    Bad("half a surrogate pair", "page-views", page().replace(b'"v"', b'"\\ud800"'), "page-views"),
    Bad("deep nesting", "page-views", b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "page-views", "nested"),
    Bad("deep nesting of lists", "account-changes", b"[" * 100_000, "account-changes"),
    Bad("an id that is a list", "page-views", page(messageId=["m"]), "page-views.messageId", "str"),
    Bad("an empty id", "page-views", page(messageId=""), "page-views.messageId", "length >= 1"),
    Bad("a visitor that is an object", "page-views", page(anonymousId={"a": 1}), "page-views.anonymousId"),
    Bad("nobody", "page-views", page(anonymousId=None), "page-views", "an anonymousId or userId"),
    Bad("a time that is a number", "page-views", page(timestamp=1772366400), "page-views.timestamp", "str"),
    Bad("a time that is none", "page-views", page(timestamp="yesterday"), "page-views.timestamp", "an ISO 8601"),
    Bad("a time far in the future", "page-views", page(timestamp=FAR), "page-views.timestamp", "up to 24 h after"),
    Bad("the end of time", "deal-changes", deal(timestamp="9999-12-31T23:59:59Z"), "deal-changes.timestamp", "up to"),
    Bad("a year 0", "touches", b'{"touchId":"t","timestamp":"0000-01-01","person":"a@b.de","kind":"call"}',
        "touches.timestamp", "an ISO 8601"),
    Bad("10 MB", "page-views", page(padding="x" * TEN_MEGABYTES), "page-views", "at most"),
    Bad("10 MB of escapes", "form-fills", page(padding="\0" * (TEN_MEGABYTES // 6)), "form-fills", "at most"),
    Bad("an unknown currency", "deal-changes", deal(amount=1, currency="XYZ"), "deal-changes.currency"),
    Bad("a currency that is a number", "deal-changes", deal(amount=1, currency=978), "deal-changes.currency"),
    Bad("a negative amount", "deal-changes", deal(amount=-1), "deal-changes.amount", "0 or more"),
    Bad("an amount beyond all bounds", "deal-changes", deal(amount="1e999"), "deal-changes.amount"),
    Bad("an amount that is none", "deal-changes", deal(amount="much"), "deal-changes.amount"),
    Bad("an amount that is not a number", "deal-changes", deal(amount="NaN"), "deal-changes.amount"),
    Bad("a negative refund", "billing", refund(amount=-5), "billing.amount", "above 0"),
    Bad("a refund in an unknown currency", "billing", refund(currency="XYZ"), "billing.currency"),
    Bad("another kind of bill", "billing", refund(type="invoice"), "billing.type", "refund"),
    Bad("an e-mail that is none", "form-fills",
        page(type="track", event="Signed Up", properties={"email": "nobody"}), "form-fills.email", "an e-mail"),
    Bad("another kind of identity", "identities", page(type="delete"), "identities.type"),
    Bad("a touch without kind", "touches",
        b'{"touchId":"t","timestamp":"2026-01-01","person":"a@b.de"}', "touches.kind"),
    Bad("a contact without source", "contact-changes",
        b'{"messageId":"m","timestamp":"2026-01-01","person":"a@b.de","account":"C1"}', "contact-changes.source"),
    Bad("domains that are text", "account-changes",
        b'{"messageId":"m","timestamp":"2026-01-01","account":"C1","domains":"acme.com"}', "account-changes.domains"),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(new_place: Callable[[int], Place]) -> Iterator[Place]:
    """Every bad record in every partition, each time with good facts before and after, all of it worked on."""
    made = new_place(PARTITIONS)
    asyncio.run(produce(made.settings))
    with made.worker() as worker:
        made.run("wait", "--timeout", "60")
        assert worker.poll() is None
        yield made


async def produce(settings: Settings) -> None:
    """Put the bad records between good ones, then good ones where they do not belong."""
    producer = AIOKafkaProducer(**kafka_options(settings), max_request_size=16 * 1024 * 1024)
    await producer.start()
    for number, bad in enumerate(BAD):
        for topic, partition, value in (*good(f"before-{number}"), (bad.topic, number % PARTITIONS, bad.value)):
            await producer.send(full_name(settings, topic), value, key=b"any", partition=partition)
        for topic, partition, value in good(f"after-{number}"):
            await producer.send(full_name(settings, topic), value, partition=partition)
    for number in range(10):
        for topic, partition, value in good(f"astray-{number}"):
            await producer.send(full_name(settings, topic), value, partition=(partition + 1) % PARTITIONS)
    await producer.stop()


def good(name: str) -> list[tuple[str, int, bytes]]:
    """A person who came by newsletter and bought for 10: topic, partition and value of each fact."""
    person = f"{name}@{name}.com"
    url = "https://a.example/?utm_source=news&utm_medium=email"
    of_visitor = (
        ("page-views", page(messageId=f"p-{name}", anonymousId=name, context={"page": {"url": url}})),
        ("identities", page(type="identify", messageId=f"i-{name}", anonymousId=name, userId=person)),
    )
    won = deal(
        dealId=name,
        messageId=f"d-{name}",
        contacts=[person],
        account=None,
        amount=10,
        stage="closed_won",
        timestamp="2026-03-02",
    )
    own = partition_of(name, PARTITIONS)
    return [*((topic, own, value) for topic, value in of_visitor), ("deal-changes", own, won)]


async def read_all(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic."""
    consumer = AIOKafkaConsumer(**kafka_options(settings), max_partition_fetch_bytes=64 * 1024 * 1024)
    await consumer.start()
    places = [TopicPartition(full_name(settings, topic), number) for number in range(PARTITIONS)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    records: list[Any] = []
    while len(records) < sum(ends.values()):
        polled = await consumer.getmany(timeout_ms=500)
        records += [record for some in polled.values() for record in some]
    await consumer.stop()
    return records


@pytest.fixture(scope="module")
def letters(place: Place) -> dict[tuple[str, bytes | None], list[Json]]:
    """The dead letters by topic and original."""
    found: dict[tuple[str, bytes | None], list[Json]] = {}
    for record in asyncio.run(read_all(place.settings, "dead-letters")):
        letter = json.loads(record.value)
        found.setdefault((letter["topic"], original(letter)), []).append(letter)
    return found


def original(letter: Json) -> bytes | None:
    """The refused record as the letter keeps it."""
    if "originalBase64" in letter:
        return base64.b64decode(letter["originalBase64"])
    return None if letter["original"] is None else letter["original"].encode()


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_record_is_a_dead_letter_with_its_reason_and_its_original(
    bad: Bad, letters: dict[tuple[str, bytes | None], list[Json]]
) -> None:
    [letter] = letters[bad.topic, bad.value]

    assert letter["where"] == bad.where
    assert bad.expected in letter["expected"]
    assert letter["got"] is not None
    assert letter["lane"] in ("visitors", "members", "accounts")


def test_there_is_a_letter_for_each_bad_record_and_no_other(
    letters: dict[tuple[str, bytes | None], list[Json]],
) -> None:
    assert letters.keys() == {(bad.topic, bad.value) for bad in BAD}


def test_a_letter_says_where_the_record_lies(place: Place, letters: dict[tuple[str, bytes | None], list[Json]]) -> None:
    records = asyncio.run(read_all(place.settings, "page-views"))
    lying: dict[tuple[int, int], bytes | None] = {(record.partition, record.offset): record.value for record in records}

    of_pages: Sequence[Json] = [letter for (topic, _), [letter] in letters.items() if topic == "page-views"]

    assert len(of_pages) > 10
    for letter in of_pages:
        assert lying[letter["partition"], letter["offset"]] == original(letter)
        assert letter["id"] == f"page-views:{letter['partition']}:{letter['offset']}"


def test_the_newest_letters_are_reported_with_what_did_not_fit(place: Place) -> None:
    rows = place.rows("report", "dead-letters", "--limit", "5")
    every = place.rows("report", "dead-letters", "--limit", str(10 * len(BAD)))

    assert [row["at"] for row in rows] == sorted((row["at"] for row in every), reverse=True)[:5]
    assert {(row["topic"], original(row)) for row in every} == {(bad.topic, bad.value) for bad in BAD}
    assert rows[0]["expected"] in place.run("report", "dead-letters").stdout
    assert "limit: expected a number from 1" in place.run("report", "dead-letters", "--limit", "0", code=2).stderr


def test_all_good_facts_before_and_after_and_in_wrong_partitions_are_counted(place: Place) -> None:
    people = 2 * len(BAD) + 10

    rows = place.rows("report", "credits", "--model", "linear", "--by", "channel")

    assert [(row["channel"], row["count"], row["amount"]) for row in rows] == [
        ("email", people * 1_000_000, people * 1000)
    ]


def test_the_audit_refuses_the_same_records(place: Place) -> None:
    audit = place.rows("audit")

    assert audit["clean"]
    assert audit["refused"] == len(BAD)
