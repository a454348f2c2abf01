"""The web role's reports, live stream, health and metrics, on a real uvicorn, Kafka and Redis."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace
from redis.asyncio import Redis
from starlette.types import Message

from models import errors
from models.settings import Redis as RedisSettings
from models.settings import Settings
from streams import answers, config, embedded, live, topics
from tests.conftest import eventually
from tests.serving import own_settings, served

pytest.importorskip("streams.reports")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(kafka: embedded.Server, redis_server: embedded.Server) -> AsyncIterator[Settings]:
    made = own_settings(kafka, redis_server)
    await topics.create_topics(made)
    async with config.redis_client(made) as redis:
        await redis.flushall()
    yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with served(settings) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with config.redis_client(settings) as client:
        yield client


def touch(at: int, account: str = "acme.com") -> str:
    return json.dumps(
        {"at": at, "account": account, "person": "ann@acme.com", "kind": "call", "channel": "event", "campaign": None}
        | {"source": None}
    )


@asynccontextmanager
async def watching(web: httpx.AsyncClient, models: str = "first_touch,linear") -> AsyncIterator[AsyncIterator[Any]]:
    """The snapshots of an open live stream."""
    async with web.stream("GET", "/api/v1/live", params={"models": models}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield (json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: {"))


async def test_every_error_has_a_status() -> None:
    kinds = {errors.TouchlineError, *errors.TouchlineError.__subclasses__()}

    assert kinds == set(answers.STATUS)
    assert all(status in answers.CODES for status in (*answers.STATUS.values(), 429))


async def test_health_says_what_answers(web: httpx.AsyncClient) -> None:
    answer = await web.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"kafka": True, "redis": True})


async def test_health_is_503_while_redis_is_away(settings: Settings) -> None:
    nowhere = replace(settings, redis=RedisSettings(url=f"redis://127.0.0.1:{embedded.free_port()}"))

    async with served(nowhere) as web:
        health = await web.get("/healthz")
        report = await web.get("/api/v1/reports/pipeline")
        async with watching(web) as snapshots:
            snapshot = await anext(snapshots)

    assert (health.status_code, health.json()) == (503, {"kafka": True, "redis": False})
    assert (report.status_code, report.json()["code"]) == (503, "unavailable")
    assert "Redis" in snapshot["trouble"]


@pytest.mark.parametrize(
    "path",
    [
        "credits?model=linear&by=channel",
        "credits?model=u_shaped&by=source&conversion=lead&grain=month&from=2026-01-01&to=2026-03-31",
        "compare?models=linear,first_touch&by=channel",
        "pipeline",
        "attributes",
    ],
)
async def test_a_report_of_empty_books_has_no_rows(web: httpx.AsyncClient, path: str) -> None:
    answer = await web.get(f"/api/v1/reports/{path}")

    assert (answer.status_code, answer.json()) == (200, [])


async def test_without_accounts_nobody_is_warm(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/reports/warmth", params={"state": "warm", "limit": "3"})

    assert answer.json() == {"counts": {"warm": 0, "warming": 0, "cooling": 0, "cold": 0}, "accounts": []}


async def test_the_lanes_are_reported(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/reports/lanes")

    assert answer.status_code == 200
    assert isinstance(answer.json(), list)


@pytest.mark.parametrize(
    "path", ["deal/no-such-deal", "journey/nobody.example", "account/nobody.example", "person/nobody@x.example"]
)
async def test_an_unknown_id_is_404(web: httpx.AsyncClient, path: str) -> None:
    answer = await web.get(f"/api/v1/reports/{path}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "where", "got"),
    [
        ("reports/credits?by=channel", "model", "nothing"),
        ("reports/credits?model=linear&by=channel&colour=red", "colour", "red"),
        ("reports/credits?model=magic&by=channel", "model", "magic"),
        ("reports/credits?model=linear&by=shoe", "by", "shoe"),
        ("reports/pipeline?where=industry", "where", "industry"),
        ("reports/pipeline?where=idustry=saas", "where", "idustry"),
        ("reports/credits?model=linear&by=channel&conversion=lunch", "conversion", "lunch"),
        ("reports/credits?model=linear&by=channel&grain=year", "grain", "year"),
        ("reports/credits?model=linear&by=channel&from=yesterday", "from", "yesterday"),
        ("reports/funnel?from=2026-04-02&to=2026-04-01", "from", "2026-04-02"),
        ("reports/compare?models=linear,magic&by=channel", "model", "magic"),
        ("reports/pipeline?stage=won", "stage", "won"),
        ("reports/warmth?state=hot", "state", "hot"),
        ("reports/warmth?limit=0", "limit", "0"),
        ("reports/alerts?limit=few", "limit", "few"),
        ("reports/credits?model=linear&by=channel&model=u_shaped", "model", "linear, u_shaped"),
        ("live?models=magic", "models", "magic"),
        ("live?models=linear,first_touch,last_touch", "models", "linear,first_touch,last_touch"),
    ],
)
async def test_a_bad_parameter_is_named_with_what_was_expected(
    web: httpx.AsyncClient, path: str, where: str, got: str
) -> None:
    answer = await web.get(f"/api/v1/{path}")

    assert answer.status_code == 400
    problem = answer.json()
    assert problem["code"] == "bad_request"
    assert where in problem["where"]
    assert got in problem["got"]
    assert problem["expected"]


async def test_an_address_where_nothing_is_is_named(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/reports/magic")

    assert (answer.status_code, answer.json()["message"]) == (404, "nothing is at /api/v1/reports/magic")


async def test_every_report_is_listed_with_its_parameters(web: httpx.AsyncClient) -> None:
    listed = {row["path"]: row["parameters"] for row in (await web.get("/api/v1/reports")).json()}

    assert {"where", "model", "by", "conversion", "grain", "from", "to"} == set(listed["/api/v1/reports/credits"])
    assert "/api/v1/reports/deal/{id}" in listed
    assert (await web.get("/api/v1/reports/dead-letters?limit=3")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/api/v1/reports/pipeline", "/api/v1/reports/pipeline takes GET alone"),
        ("GET", "/v1/page", "/v1/page takes POST"),
    ],
)
async def test_a_method_that_an_address_does_not_take_is_told(
    web: httpx.AsyncClient, method: str, path: str, said: str
) -> None:
    assert (await web.request(method, path)).json()["message"] == said


async def test_requests_are_counted_by_route_and_status(web: httpx.AsyncClient) -> None:
    await web.get("/api/v1/reports/deal/some-deal")
    await web.post("/v1/page")

    text = (await web.get("/metrics")).text

    assert 'touchline_http_requests_total{route="/api/v1/reports/deal/{id:path}",status="404"}' in text
    assert 'touchline_http_requests_total{route="/v1/page",status="400"}' in text
    assert "touchline_collector_produce_seconds_bucket" in text


async def test_the_stream_sends_a_snapshot_at_once_and_another_only_when_something_changed(
    web: httpx.AsyncClient, redis: Redis
) -> None:
    async with watching(web) as snapshots:
        first = await anext(snapshots)
        await redis.rpush("{accounts:1}:newest", touch(5), touch(9))
        await redis.rpush("{accounts:0}:newest", touch(7))
        second = await anext(snapshots)
        while len(second["newest"]) < 3:
            second = await anext(snapshots)

    assert first["newest"] == []
    assert first["pot"] == {"amount": 0, "count": 0}
    assert set(first["revenue"]) == {"first_touch", "linear"}
    assert [row["at"] for row in second["newest"]] == [9, 7, 5]


async def test_pages_that_compare_other_models_get_their_own(web: httpx.AsyncClient) -> None:
    async with watching(web, "last_touch") as one, watching(web, "linear,u_shaped") as other:
        models = [set((await anext(snapshots))["revenue"]) for snapshots in (one, other)]

    assert models == [{"last_touch"}, {"linear", "u_shaped"}]


async def test_a_page_that_left_is_forgotten(web: httpx.AsyncClient) -> None:
    async with watching(web) as snapshots:
        await anext(snapshots)
        assert "touchline_live_streams 1.0" in (await web.get("/metrics")).text

    async def none_left() -> bool:
        return "touchline_live_streams 0.0" in (await web.get("/metrics")).text

    assert await eventually(none_left)


async def test_a_page_that_takes_nothing_is_dropped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SEND_SECONDS", 0.05)
    redis = config.redis_client(settings)
    pages = live.Live(redis, settings)
    poller = asyncio.create_task(pages.run())
    never = asyncio.Event()

    async def receive() -> Message:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never.wait()

    async with asyncio.timeout(10):
        await pages.stream(("linear",), receive, send)
    poller.cancel()
    await redis.aclose()

    assert pages.pages == 0


async def test_a_quiet_stream_has_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.01)
    page = live.Page(("linear",))
    page.offer(b"{}")

    events = [await page.next_event(), await page.next_event()]
    page.offer(b"{}")

    assert events == [b"data: {}\n\n", b"event: alive\ndata: 1\n\n"]
    assert await page.next_event() == b""


async def test_open_streams_do_not_hold_up_the_shutdown(settings: Settings) -> None:
    async with asyncio.timeout(8), served(settings) as web:
        answer = await web.send(web.build_request("GET", "/api/v1/live"), stream=True)
        lines = answer.aiter_lines()
        await anext(lines)


async def test_the_page_may_load_nothing_from_elsewhere(web: httpx.AsyncClient) -> None:
    answer = await web.get("/")

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    for asset in ("live.css", "live.js", "icon.svg"):
        assert (await web.get(f"/static/{asset}")).status_code == 200
        assert f"/static/{asset}" in answer.text


async def test_the_rows_are_json_as_the_commands_print_it(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/reports/pipeline")

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert msgspec.json.decode(answer.content) == []


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/api/v1/live", 405)])
async def test_what_is_not_there_is_told_in_json(web: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await web.request(method, path)

    assert answer.status_code == status
    assert answer.json()["code"] == answers.CODES[status]
