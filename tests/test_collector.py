"""The HTTP door on a real uvicorn, before a real Kafka."""

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiokafka.partitioner import DefaultPartitioner
from msgspec.structs import replace

from models.errors import BadInput
from models.settings import Kafka, Settings, Web
from models.settings import Redis as RedisSettings
from streams import embedded, intake, topics
from streams.answers import TooLarge
from streams.collector import inflate
from tests.conftest import eventually
from tests.serving import KEY, records, served

SUCCESS = b'{"success":true}'
MOST = 64 * 1024
AUTH = (KEY, "")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(kafka: embedded.Server, redis_server: embedded.Server) -> Settings:
    made = Settings(
        kafka=Kafka(bootstrap=kafka.address),
        redis=RedisSettings(url=redis_server.address),
        web=Web(max_body_bytes=MOST),
        partitions=2,
        topic_prefix=f"test-{uuid.uuid4().hex[:8]}-",
    )
    await topics.create_topics(made)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with served(settings) as client:
        yield client


def page(**members: Any) -> dict[str, Any]:
    return {"type": "page", "messageId": str(uuid.uuid4()), "anonymousId": "visitor-1"} | members


async def found(settings: Settings, topic: str, message_id: str) -> tuple[str | None, Any]:
    """Key and content of the one record of a topic with this message id."""
    everything = await records(settings, topic)
    (one,) = [(key, json.loads(value)) for key, value in everything if message_id.encode() in value]
    return one


@pytest.mark.parametrize(
    ("path", "kind", "topic"),
    [
        ("page", "page", "page-views"),
        ("p", "page", "page-views"),
        ("screen", "screen", "page-views"),
        ("s", "screen", "page-views"),
        ("identify", "identify", "identities"),
        ("i", "identify", "identities"),
        ("group", "group", "identities"),
        ("g", "group", "identities"),
        ("alias", "alias", "identities"),
        ("a", "alias", "identities"),
        ("track", "track", "form-fills"),
        ("t", "track", "form-fills"),
    ],
)
async def test_a_call_is_a_fact_in_its_topic_once_it_is_answered(
    web: httpx.AsyncClient, settings: Settings, path: str, kind: str, topic: str
) -> None:
    message = page(userId="u", groupId="g", previousId="p", event="Form Submitted")
    del message["type"]

    answer = await web.post(f"/v1/{path}", json=message, auth=AUTH)

    assert (answer.status_code, answer.content) == (200, SUCCESS)
    key, stored = await found(settings, topic, message["messageId"])
    assert key == "visitor-1"
    assert stored["type"] == kind
    assert stored["receivedAt"] == stored["timestamp"]


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/v1/import/", "/v1/import", "/beacon/v1/batch"])
async def test_a_batch_is_taken_on_every_path_clients_use(
    web: httpx.AsyncClient, settings: Settings, path: str
) -> None:
    first, second = page(), page(type="identify", userId="Ann")

    answer = await web.post(path, json={"batch": [first, second]}, params={"writeKey": KEY})

    assert (answer.status_code, answer.content) == (200, SUCCESS)
    await found(settings, "page-views", first["messageId"])
    await found(settings, "identities", second["messageId"])


async def test_the_write_key_may_stand_in_the_body_alone(web: httpx.AsyncClient, settings: Settings) -> None:
    message = page()

    answer = await web.post("/v1/page", json=message | {"writeKey": KEY})

    assert answer.content == SUCCESS
    _, stored = await found(settings, "page-views", message["messageId"])
    assert "writeKey" not in stored


@pytest.mark.parametrize(
    "request_parts",
    [
        {},
        {"auth": ("other", "")},
        {"params": {"writeKey": "other"}},
        {"headers": {"authorization": "Basic %%%"}},
        {"headers": {"authorization": "Bearer x"}},
    ],
)
async def test_without_a_key_of_ours_nothing_is_taken(web: httpx.AsyncClient, request_parts: dict[str, Any]) -> None:
    answer = await web.post("/v1/page", json=page(), **request_parts)

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert answer.json()["message"]
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("content_type", "pack"),
    [
        ("text/plain", bytes),
        ("application/x-www-form-urlencoded", gzip.compress),
        ("application/json; charset=utf-8", gzip.compress),
    ],
)
async def test_the_content_type_is_ignored_and_gzip_is_seen_in_the_body(
    web: httpx.AsyncClient, settings: Settings, content_type: str, pack: Any
) -> None:
    message = page()
    body = pack(json.dumps({"batch": [message]}).encode())

    answer = await web.post("/v1/batch", content=body, auth=AUTH, headers={"content-type": content_type})

    assert answer.content == SUCCESS
    await found(settings, "page-views", message["messageId"])


async def test_a_body_in_chunks_is_put_together(web: httpx.AsyncClient, settings: Settings) -> None:
    message = page(properties={"title": "x" * 30_000})
    body = json.dumps(message).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    answer = await web.post("/v1/page", content=chunks(), auth=AUTH)

    assert answer.content == SUCCESS
    await found(settings, "page-views", message["messageId"])


async def test_a_message_that_is_no_fact_is_a_dead_letter_and_the_others_count(
    web: httpx.AsyncClient, settings: Settings
) -> None:
    good, bad = page(), page(timestamp="soon")
    marks = [str(uuid.uuid4()) for _ in range(3)]
    broken = [marks[0], {"type": "hello", "messageId": marks[1]}, {"type": "page", "messageId": marks[2]}]

    answer = await web.post("/v1/batch", json={"batch": [bad, *broken, good]}, auth=AUTH)

    assert answer.content == SUCCESS
    await found(settings, "page-views", good["messageId"])
    _, letter = await found(settings, "dead-letters", bad["messageId"])
    assert "timestamp" in letter["where"]
    assert (letter["got"], letter["lane"]) == ("soon", "collector")
    assert json.loads(letter["original"]) == bad
    for mark in marks:
        await found(settings, "dead-letters", mark)


async def test_a_track_call_that_names_visitor_and_user_identifies(web: httpx.AsyncClient, settings: Settings) -> None:
    message = page(type="track", event="Clicked", userId="u-9", properties={"color": "red"})

    await web.post("/v1/track", json=message, auth=AUTH)

    _, stored = await found(settings, "identities", message["messageId"])
    assert stored["event"] == "Clicked"
    assert stored["properties"] == {"color": "red"}


async def test_a_track_call_that_no_topic_takes_is_answered_and_counted(web: httpx.AsyncClient) -> None:
    answer = await web.post("/v1/track", json={"event": "Clicked", "anonymousId": "v"}, auth=AUTH)

    assert answer.content == SUCCESS
    assert 'touchline_collector_messages_total{topic="unused"}' in (await web.get("/metrics")).text


@pytest.mark.parametrize("body", [b"", b"hello", b"[1]", b'{"a":', b"\x1f\x8b broken", gzip.compress(b"{}" * 9)[:-9]])
async def test_a_body_that_cannot_be_read_is_400(web: httpx.AsyncClient, body: bytes) -> None:
    answer = await web.post("/v1/page", content=body, auth=AUTH)

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"
    assert answer.json()["where"] == "body"


async def test_a_body_beyond_the_limit_is_413_packed_or_not(web: httpx.AsyncClient) -> None:
    long = json.dumps(page(title="x" * MOST)).encode()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 4096

    for body in (long, gzip.compress(long), endless()):
        answer = await web.post("/v1/page", content=body, auth=AUTH)

        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


async def test_inflating_stops_at_the_limit() -> None:
    assert inflate(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000
    with pytest.raises(TooLarge):
        inflate(gzip.compress(b"x" * 1001), 1000)
    with pytest.raises(BadInput):
        inflate(gzip.compress(b"x" * 1000)[:-4], 1000)


async def test_every_path_is_preflighted_with_the_headers_clients_send(web: httpx.AsyncClient) -> None:
    for path in ("/v1/t", "/v1/batch", "/beacon/v1/batch", "/sourceConfig/", "/v1/projects/k/settings"):
        answer = await web.options(path, headers={"origin": "https://shop.example"})

        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert "rsa-since-last-attempt" in answer.headers["access-control-allow-headers"]
        assert int(answer.headers["access-control-max-age"]) > 0
        assert answer.headers["access-control-expose-headers"] == "retry-after"


async def test_browser_clients_are_told_where_to_send(web: httpx.AsyncClient) -> None:
    segment = await web.get(f"/v1/projects/{KEY}/settings")
    rudder = await web.get("/sourceConfig/", params={"writeKey": KEY, "p": "npm"})

    host = f"{web.base_url.host}:{web.base_url.port}"
    destination = {"apiKey": KEY, "apiHost": f"{host}/v1", "protocol": "http"}
    assert segment.json() == {"integrations": {"Segment.io": destination}}
    assert rudder.json()["source"]["enabled"] is True
    assert (await web.get("/v1/projects/other/settings")).status_code == 404
    assert (await web.get("/sourceConfig/")).status_code == 401


async def test_the_clients_own_metrics_need_no_key(web: httpx.AsyncClient) -> None:
    answer = await web.post("/v1/m", content=b'{"series":[]}')

    assert (answer.status_code, answer.content) == (200, SUCCESS)


async def test_what_nothing_takes_is_404_in_json(web: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/v1/nothing"), ("GET", "/v1/page"), ("DELETE", "/v1/batch")):
        answer = await web.request(method, path, auth=AUTH)

        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"


async def test_while_kafka_is_away_clients_are_told_to_come_back(settings: Settings) -> None:
    nowhere = replace(settings, kafka=replace(settings.kafka, bootstrap=f"127.0.0.1:{embedded.free_port()}"))

    async with served(nowhere) as web:
        answer = await web.post("/v1/page", json=page(), auth=AUTH)
        health = await web.get("/healthz")

    assert answer.status_code == 429
    assert answer.json()["code"] == "try_later"
    assert int(answer.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()) == (503, {"kafka": False, "redis": True})


async def test_nothing_accepted_is_lost_or_doubled_when_kafka_is_killed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ACKNOWLEDGE_SECONDS", 1.0)
    monkeypatch.setattr(intake, "STALL_SECONDS", 0.5)
    broker = await embedded.start_kafka(tmp_path)
    own = replace(settings, kafka=Kafka(bootstrap=broker.address))
    await topics.create_topics(own)
    accepted: list[str] = []

    async def send(web: httpx.AsyncClient) -> httpx.Response:
        message = page()
        answer = await web.post("/v1/page", json=message, auth=AUTH)
        if answer.status_code == 200:
            accepted.append(message["messageId"])
        return answer

    async with served(own) as web:
        await send(web)
        broker.kill()
        late = await send(web)
        await asyncio.wait_for(send(web), 0.5)
        broker = await embedded.start_kafka(tmp_path)

        async def is_back() -> bool:
            return (await send(web)).status_code == 200

        await eventually(is_back, 30)
        await asyncio.gather(*(send(web) for _ in range(20)))
    stored = [json.loads(value)["messageId"] for _, value in await records(own, "page-views")]
    await broker.stop()

    assert late.status_code == 429
    assert len(accepted) == 22
    assert set(accepted) <= set(stored)
    assert len(stored) == len(set(stored))


async def test_what_kafka_did_not_acknowledge_is_bounded(settings: Settings) -> None:
    door = intake.Intake(settings, most_bytes=2000)
    await door.start()
    letters = [intake.Record("dead-letters", None, b"x" * 1000)] * 20

    sent = await asyncio.gather(*(door.publish([letter]) for letter in letters), return_exceptions=True)
    await door.publish(letters[:1])
    await door.stop()

    refused = [error for error in sent if error is not None]
    assert 0 < len(refused) < 20
    assert all("too much is waiting" in str(error) for error in refused)
    assert door.held_bytes == 0


async def test_records_go_where_kafkas_own_partitioner_puts_them() -> None:
    kafkas = DefaultPartitioner()
    assert {intake.partition_of(None, [0, 1], [0, 1]) for _ in range(100)} == {0, 1}
    for key in (b"", b"visitor", b"user:\xc3\xa4", str(uuid.uuid4()).encode()):
        assert intake.partition_of(key, list(range(8)), []) == kafkas(key, list(range(8)), list(range(8)))


async def test_a_record_as_long_as_a_body_may_be_gets_through(settings: Settings) -> None:
    door = intake.Intake(settings)
    await door.start()
    value = b"x" * Settings().web.max_body_bytes * 2

    await door.publish([intake.Record("dead-letters", None, value)])
    await door.stop()

    assert value in [stored for _, stored in await records(settings, "dead-letters")]


async def test_without_a_kafka_in_the_settings_nothing_starts() -> None:
    with pytest.raises(BadInput, match=r"kafka\.bootstrap"):
        intake.Intake(Settings())
