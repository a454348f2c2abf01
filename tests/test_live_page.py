"""The live page in a real browser."""

import json
import shutil
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, Page, async_playwright, expect
from redis.asyncio import Redis

from models.alerts import encode, sample_alert
from models.partitions import partition_of
from models.settings import Settings
from models.times import to_text
from streams import config, embedded, topics
from tests.serving import KEY, own_settings, served

pytest.importorskip("streams.reports")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(kafka: embedded.Server, redis_server: embedded.Server) -> Settings:
    made = own_settings(kafka, redis_server)
    await topics.create_topics(made)
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with config.redis_client(settings) as client:
        await client.flushall()
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def web(settings: Settings, redis: Redis) -> AsyncIterator[httpx.AsyncClient]:
    async with served(settings) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, web: httpx.AsyncClient) -> AsyncIterator[Page]:
    """An open live page; it fails the test when it complains or asks another server for anything."""
    opened = await browser.new_page(viewport={"width": 1200, "height": 800})
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: requests.append(urlsplit(request.url).netloc))
    await opened.goto(str(web.base_url))
    await expect(opened.locator("#status")).to_have_attribute("data-state", "live")
    yield opened
    await opened.close()
    assert set(requests) == {f"{web.base_url.host}:{web.base_url.port}"}
    assert [text for text in complaints if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text] == []


def touch(**fields: str | None) -> str:
    return json.dumps(
        {"at": time.time_ns() // 1000, "account": "acme.com", "person": "ann@acme.com", "kind": "form_fill"}
        | {"channel": "paid_search", "campaign": "spring", "source": "google"}
        | fields
    )


async def test_an_empty_page_tells_how_to_send_the_first_event(page: Page, web: httpx.AsyncClient) -> None:
    command = page.locator("#start-command")

    await expect(page.locator("#start")).to_be_visible()
    await expect(command).to_contain_text(f"curl -u {KEY}: {str(web.base_url).rstrip('/')}/v1/batch")
    body = (await command.inner_text()).partition("-d '")[2].rstrip("'")
    answer = await web.post("/v1/batch", content=body, auth=(KEY, ""))
    assert answer.content == b'{"success":true}'


async def test_a_touch_that_arrives_is_shown_without_a_reload(page: Page, redis: Redis) -> None:
    await redis.lpush("{accounts:1}:newest", touch(campaign="<b>spring</b>"))

    row = page.locator("#touches tr")
    await expect(row).to_have_count(1)
    for text in ("now", "Form fill", "Paid search", "google", "<b>spring</b>", "acme.com", "ann@acme.com"):
        await expect(row).to_contain_text(text)
    await expect(page.locator("#start")).to_be_hidden()


async def test_an_account_is_shown_by_its_name_and_told_by_its_id(page: Page, redis: Redis, settings: Settings) -> None:
    partition = partition_of("0015g00000A1", settings.partitions)
    await redis.hset(f"{{accounts:{partition}}}:names", "0015g00000A1", "Acme")
    await redis.lpush("{accounts:1}:newest", touch(account="0015g00000A1"))

    who = page.locator("#touches tr td").last
    await expect(who).to_contain_text("Acme")
    await expect(who).not_to_contain_text("0015g00000A1")
    await expect(who).to_have_attribute("title", "0015g00000A1")


async def test_a_name_that_is_an_abbreviation_is_written_as_one(page: Page, redis: Redis) -> None:
    await redis.lpush("{accounts:1}:newest", touch(channel="ai_assistant"))

    await expect(page.locator("#touches tr")).to_contain_text("AI assistant")


async def test_an_alert_that_arrives_names_the_touch_and_what_had_cooled_the_account(page: Page, redis: Redis) -> None:
    await redis.lpush("{accounts:0}:alerts", encode(sample_alert("al_1", to_text(time.time_ns() // 1000))))

    item = page.locator("#alerts li")
    await expect(item).to_have_count(1)
    for text in ("warmed again", "Web session (spring)", "had cooled after demo"):
        await expect(item).to_contain_text(text)


async def test_without_deals_and_scores_the_cards_say_so(page: Page) -> None:
    for none in ("#months-none", "#alerts-none", "#warmest-none", "#cooling-none", "#stages-none"):
        await expect(page.locator(none)).to_be_visible()


async def test_choosing_a_model_is_kept_in_the_address(page: Page) -> None:
    await page.get_by_label("Second model").select_option("time_decay")

    await expect(page.locator("#head-b")).to_have_text("Time decay")
    assert page.url.endswith("?models=first_touch,time_decay")


async def test_an_address_with_an_unknown_model_falls_back_to_the_usual_ones(
    browser: Browser, web: httpx.AsyncClient
) -> None:
    opened = await browser.new_page()
    await opened.goto(f"{web.base_url}?models=magic,linear")

    await expect(opened.locator("#status")).to_have_text("Live", timeout=10_000)
    await expect(opened.locator("#head-a")).to_have_text("First touch")
    await opened.close()


async def test_nothing_is_cut_off_on_a_narrow_screen(page: Page, redis: Redis) -> None:
    await redis.lpush("{accounts:0}:newest", touch(account="a-very-long-account-name.example" * 3))
    await page.set_viewport_size({"width": 320, "height": 700})

    await expect(page.locator("#touches tr")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_a_lost_connection_is_shown_and_found_again(browser: Browser, settings: Settings, redis: Redis) -> None:
    fixed = replace(settings, web=replace(settings.web, port=embedded.free_port()))
    async with served(fixed) as web:
        opened = await browser.new_page()
        await opened.goto(str(web.base_url))
        await expect(opened.locator("#status")).to_have_text("Live")

    await expect(opened.locator("#status")).to_contain_text("Connection lost")

    async with served(fixed):
        await expect(opened.locator("#status")).to_have_text("Live", timeout=15_000)
        await opened.close()
