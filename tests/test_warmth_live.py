"""Warmth on real Kafka and Redis: a retargeting ad revives an account, and another cools while the worker is dead."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from models.settings import Settings
from models.times import DAY, HOUR, MINUTE, SECOND, to_text
from streams.config import kafka_options
from streams.topics import ALERTS, full_name
from tests.running import Fact, Place, identify, page, touch, until

COOLS_IN = 15 * SECOND


def facts_before(now: int) -> list[Fact]:
    """acme.com was warm and has gone cold."""
    weeks_ago = now - 40 * DAY
    return [
        touch("demo", to_text(weeks_ago), "ann@acme.com", "demo", rep="Bo"),
        touch("meeting", to_text(weeks_ago - HOUR), "ann@acme.com", "meeting", rep="Bo"),
        touch("call", to_text(weeks_ago - DAY), "ann@acme.com", "call", rep="Bo"),
        identify("i1", to_text(now - 50 * DAY), "v1", "ann@acme.com"),
    ]


def three_meetings(now: int) -> list[Fact]:
    """beta.de is warm and will cool in a moment."""
    fortnight_ago = to_text(now - 14 * DAY + COOLS_IN)
    return [touch(f"b{number}", fortnight_ago, "cy@beta.de", "meeting") for number in range(3)]


def revival(now: int) -> list[Fact]:
    """Ann clicks an ad and fills a form in."""
    url = "https://site.example/pricing?utm_source=adroll&utm_medium=retargeting&utm_campaign=spring"
    form = {"type": "track", "event": "Form Submitted", "messageId": "f1", "anonymousId": "v1"}
    return [
        page("p1", to_text(now - MINUTE), "v1", url),
        ("form-fills", {**form, "timestamp": to_text(now), "context": {"page": {"url": url}}}),
    ]


def alerts_of(settings: Settings) -> list[dict[str, Any]]:
    """Every message in the topic `alerts`."""
    return asyncio.run(_read(settings))


async def _read(settings: Settings) -> list[dict[str, Any]]:
    consumer = AIOKafkaConsumer(**kafka_options(settings))
    await consumer.start()
    try:
        places = [TopicPartition(full_name(settings, ALERTS), number) for number in range(settings.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        found: list[dict[str, Any]] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            polled = await consumer.getmany(*places, timeout_ms=200)
            found += (json.loads(record.value) for records in polled.values() for record in records)
        return found
    finally:
        await consumer.stop()


def test_a_retargeting_ad_revives_a_cold_account_and_another_cools_while_the_worker_is_dead(
    settings: Settings, tmp_path: Path
) -> None:
    place, now = Place(settings, tmp_path), time.time_ns() // 1000
    place.run("topics", "--create")
    place.produce(facts_before(now))
    first = place.start_worker()
    place.run("wait", "--timeout", "60")
    now = time.time_ns() // 1000
    place.produce(three_meetings(now))
    place.run("wait", "--timeout", "60")
    rows = {row["account"]: row for row in place.rows("report", "warmth")["accounts"]}
    assert alerts_of(settings) == []
    assert (rows["acme.com"]["state"], rows["beta.de"]["state"]) == ("cold", "warm")
    assert rows["beta.de"]["next_state"] == "cooling"
    first.kill()
    first.wait()
    place.produce(revival(now))
    time.sleep(max(0.0, (now + COOLS_IN) / SECOND - time.time()))

    with place.worker():
        sent = until(lambda: alerts_of(settings), lambda found: len(found) > 1, seconds=40)
        place.run("wait", "--timeout", "60")
        place.run("audit")
        history = place.rows("report", "warmth", "acme.com")
        listed = place.rows("report", "alerts")
        place.run("report", "warmth")
        place.run("report", "warmth", "acme.com")
        place.run("report", "alerts", "--limit", "1")

    by_account = {alert["account"]["id"]: alert for alert in sent}
    assert len(sent) == len(by_account) == 2
    assert by_account["beta.de"]["transition"] == "cooling"
    revived = by_account["acme.com"]
    assert (revived["transition"], revived["rewarmed"], revived["late"]) == ("warming", True, False)
    assert {(each["channel"], each["campaign"]) for each in revived["causes"]} == {("retargeting", "spring")}
    assert [each["kind"] for each in revived["cooled"]["lastTouches"]] == ["demo", "meeting", "call"]
    assert history["history"][-1]["causes"] == revived["causes"]
    assert [each["transition"] for each in history["history"]] == ["warming", "warmed", "cooling", "cooled", "warming"]
    assert {each["alertId"] for each in listed} == {each["alertId"] for each in sent}
