"""What a Segment client's request means: pure, no servers."""

import json
from typing import Any

import pytest

from models.errors import BadInput
from models.settings import Settings
from models.times import parse_instant
from streams.reference import is_bot
from streams.segment import MOST_MESSAGES, Arrival, complete, facts_in, pack, parse_body, split

RECEIVED = parse_instant("2026-03-01T12:00:10Z", "test")
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def completed(message: dict[str, Any], kind: str | None = "track", batch: dict[str, Any] | None = None) -> Any:
    envelope = parse_body(json.dumps(batch or {}).encode())
    return json.loads(pack(complete(json.dumps(message).encode(), Arrival(RECEIVED, kind, envelope), is_bot)))


def topics(message: dict[str, Any]) -> list[str]:
    raw = complete(json.dumps(message).encode(), Arrival(RECEIVED, None, {}), is_bot)
    return [topic for topic, _ in facts_in(raw, Settings())]


def test_what_the_client_left_out_is_filled_in() -> None:
    message = completed({"userId": "u"}, kind="page")

    assert message["type"] == "page"
    assert len(message["messageId"]) == 36
    assert message["timestamp"] == message["receivedAt"] == "2026-03-01T12:00:10Z"
    assert "originalTimestamp" not in message


@pytest.mark.parametrize("name", ["timestamp", "originalTimestamp"])
def test_the_clock_is_corrected_by_the_lag_between_event_and_sending(name: str) -> None:
    message = completed({name: "2031-01-01T00:00:00Z", "sentAt": "2031-01-01T00:00:07.5Z"})

    assert message["timestamp"] == "2026-03-01T12:00:02.500000Z"
    assert message["originalTimestamp"] == "2031-01-01T00:00:00Z"


def test_the_original_timestamp_is_the_clients_when_both_are_sent() -> None:
    message = completed(
        {
            "timestamp": "2030-01-01T00:00:00Z",
            "originalTimestamp": "2026-03-01T11:00:00Z",
            "sentAt": "2026-03-01T11:00:05Z",
        }
    )

    assert message["timestamp"] == "2026-03-01T12:00:05Z"


def test_without_sent_at_the_clients_time_stands() -> None:
    for sent_at in ({}, {"sentAt": None}):
        message = completed({"originalTimestamp": "2026-02-28T08:00:00+02:00", **sent_at})

        assert message["timestamp"] == "2026-02-28T08:00:00+02:00"


def test_nanoseconds_with_an_offset_are_read_as_go_sends_them() -> None:
    message = completed(
        {"timestamp": "2026-03-01T14:00:00.123456789+02:00", "sentAt": "2026-03-01T14:00:01.123456999+02:00"}
    )

    assert message["timestamp"] == "2026-03-01T12:00:09Z"


def test_a_time_that_is_none_is_refused() -> None:
    for name in ("timestamp", "sentAt"):
        with pytest.raises(BadInput, match=name):
            completed({"timestamp": "2026-03-01T12:00:00Z", "sentAt": "2026-03-01T12:00:00Z", name: "yesterday"})


def test_a_message_takes_sent_at_and_context_over_from_its_batch_where_it_has_none() -> None:
    batch = {"sentAt": "2026-03-01T12:00:00Z", "context": {"library": {"name": "go"}, "ip": "batch"}, "writeKey": "k"}
    message = completed({"type": "track", "timestamp": "2026-03-01T11:59:00Z", "context": {"ip": "own"}}, None, batch)

    assert message["timestamp"] == "2026-03-01T11:59:10Z"
    assert message["context"] == {"library": {"name": "go"}, "ip": "own"}
    assert "writeKey" not in message


def test_what_nothing_reads_stays_as_it_was_sent() -> None:
    original = b'{"messageId":"m","properties":{"price":1.10,"big":123456789012345678901234567890}}'

    packed = pack(complete(original, Arrival(RECEIVED, "track", {}), is_bot))

    assert b'{"price":1.10,"big":123456789012345678901234567890}' in packed


def test_an_emoji_cut_in_two_does_not_cost_the_batch() -> None:
    body = rb'{"batch":[{"a":"\ud83d\ude00 \ud83d"},{"b":"\\\ud800\\ud800"}]}'
    envelope = parse_body(body)

    first, second = split(body, envelope, None)

    assert json.loads(first) == {"a": "😀 �"}
    assert json.loads(second) == {"b": "\\�\\ud800"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "page"}, ["page-views"]),
        ({"type": "screen"}, ["page-views"]),
        ({"type": "identify"}, ["identities"]),
        ({"type": "alias"}, ["identities"]),
        ({"type": "group"}, ["identities"]),
        ({"type": "track", "event": "Form Submitted", "anonymousId": "a", "userId": "u"}, ["form-fills"]),
        ({"type": "track", "event": "Clicked", "anonymousId": "a", "userId": "u"}, ["identities", "product-usage"]),
        ({"type": "track", "event": "Clicked", "anonymousId": "a", "userId": None}, []),
        ({"type": "track", "event": "Clicked", "anonymousId": "a", "userId": "null"}, ["identities"]),
        ({"type": "track", "event": "Clicked", "userId": 7}, ["product-usage"]),
        ({"type": "track", "event": "Clicked", "userId": 7, "context": {"userAgent": GOOGLEBOT}}, []),
        ({"type": "track", "userId": "u"}, []),
    ],
)
def test_each_call_goes_to_its_topics(message: dict[str, Any], expected: list[str]) -> None:
    assert topics(message) == expected


@pytest.mark.parametrize("message", [{}, {"type": "hello"}, {"type": 7}, {"type": "track", "event": 7}])
def test_an_unknown_type_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        topics(message)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b'{"a":', b"\xff\xfe", b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput, match="body"):
        parse_body(body)


@pytest.mark.parametrize("batch", [{}, {"batch": None}, {"batch": {}}, {"batch": [{}] * (MOST_MESSAGES + 1)}])
def test_a_batch_without_messages_or_with_too_many_is_refused(batch: dict[str, Any]) -> None:
    body = json.dumps(batch).encode()

    with pytest.raises(BadInput, match="batch"):
        split(body, parse_body(body), None)


@pytest.mark.parametrize(("agent", "verdict"), [(GOOGLEBOT, True), ("Mozilla/5.0 Firefox/140.0", False), ("", None)])
def test_the_list_judges_the_user_agent_as_a_message_arrives(agent: str, verdict: bool | None) -> None:
    for claimed in ({}, {"bot": True}, {"bot": False}):
        message = completed({"context": {"userAgent": agent}, **claimed}, kind="page")

        assert message.get("bot") == verdict


@pytest.mark.parametrize("kind", ["unlink", "bot"])
def test_what_unmakes_others_messages_needs_a_secret_key(kind: str) -> None:
    original = json.dumps({"type": kind, "anonymousId": "v1", "unlinks": "m1", "bot": True}).encode()

    with pytest.raises(BadInput, match="secret key"):
        complete(original, Arrival(RECEIVED, None, {}, is_secret=False), is_bot)

    message = complete(original, Arrival(RECEIVED, None, {}, is_secret=True), is_bot)
    assert [topic for topic, _ in facts_in(message, Settings())] == ["identities"]
    assert json.loads(pack(message))["bot"] is True


def test_a_track_call_is_usage_of_the_user_for_the_group_it_is_made_in() -> None:
    call = {"type": "track", "event": "Report Viewed", "userId": "u", "messageId": "m", "context": {"groupId": "C1"}}

    [(_, usage)] = facts_in(complete(json.dumps(call).encode(), Arrival(RECEIVED, None, {}), is_bot), Settings())

    received = {"timestamp": "2026-03-01T12:00:10Z", "receivedAt": "2026-03-01T12:00:10Z"}
    assert json.loads(pack(usage)) == {
        "messageId": "m",
        "person": "u",
        "event": "Report Viewed",
        "account": "C1",
        **received,
    }
