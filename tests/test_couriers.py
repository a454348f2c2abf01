"""Couriers on a real Redis, with receivers that fail, hang, redirect, ask for patience or are gone."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis import Redis

from models.alerts import AccountOf, alert_id, sample_alert
from models.posting import Source
from models.settings import Settings, parse_settings
from models.times import DAY, SECOND, to_text
from streams import config, embedded
from streams.couriers import Couriers, now
from streams.deliver import Desk
from streams.delivery_tables import CLAIM_SECONDS, Claim, DeliveryTables
from streams.receivers import is_public
from tests.conftest import eventually
from tests.receiving import OTHER_SECRET, SECRET, Answered, Receiver, Request, always, first, post_office, receiving

BEGAN = now() // SECOND * SECOND - DAY
QUICK = {"timeout_seconds": 1.0, "retry_seconds": [0.05, 0.1], "then_every_seconds": 0.2, "resend_seconds": 0.2}


@pytest.fixture
def redis_url(redis_server: embedded.Server) -> Iterator[str]:
    """An empty Redis."""
    with Redis.from_url(redis_server.address) as redis:
        redis.flushall()
    yield redis_server.address


class Office:
    """Couriers at work, and the desk that gives alerts to them."""

    def __init__(self, settings: Settings, redis: Any) -> None:
        self.settings = settings
        self.redis = redis
        self.tables = DeliveryTables(redis, settings.delivery.timeout_seconds)
        self.couriers = Couriers(settings, self.tables)
        self.desk = Desk(settings, self.tables, self.couriers)

    async def take(self, alert: bytes, *headers: tuple[str, str]) -> None:
        await self.desk.take(Source(alert, 1, 2, 3, headers))

    async def entries(self) -> list[dict[str, Any]]:
        """What the log says of deliveries, oldest first."""
        return [msgspec.json.decode(value) for topic, _, value in await self._log() if topic == "deliveries"]

    async def letters(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for topic, _, value in await self._log() if topic == "dead-letters"]

    async def outcomes(self, destination: str = "hook") -> list[str]:
        return [entry["outcome"] for entry in await self.entries() if entry["destination"] == destination]

    async def _log(self) -> list[tuple[str, bytes, bytes]]:
        found = await self.redis.lrange("{deliver}:log", 0, -1)
        return [msgspec.msgpack.decode(each, type=tuple[str, bytes, bytes]) for each in found]


@asynccontextmanager
async def office(
    redis_url: str,
    destinations: Mapping[str, Any],
    routes: Sequence[Mapping[str, Any]] = (),
    start: bool = True,
    **delivery: Any,
) -> AsyncIterator[Office]:
    every = [{"name": "all", "to": list(destinations)}]
    document = {
        "redis": {"url": redis_url},
        "destinations": {name: {"allow_private": True, **each} for name, each in destinations.items()},
        "routes": list(routes) or every,
        "delivery": {**QUICK, **delivery},
    }
    settings = parse_settings(document)
    async with config.redis_client(settings) as redis:
        opened = Office(settings, redis)
        if start:
            await opened.couriers.start()
        try:
            yield opened
        finally:
            await opened.couriers.stop()


def hook(receiver: Receiver, *secrets: str) -> dict[str, Any]:
    return {"kind": "webhook", "url": receiver.url, "secrets": secrets or [SECRET]}


def alert(account: str = "acme.com", n: int = 0, transition: str = "warmed") -> bytes:
    at = to_text(BEGAN + n * SECOND)
    id = alert_id(account, transition, at)
    return msgspec.json.encode(
        replace(sample_alert(id, at), test=False, transition=transition, account=AccountOf(account, owner="Grace"))
    )


def id_of(alert: bytes) -> str:
    return str(msgspec.json.decode(alert)["alertId"])


# --- webhooks ---------------------------------------------------------------------------


async def test_an_alert_arrives_as_it_is_signed_with_every_secret(redis_url: str) -> None:
    async with receiving() as receiver, office(redis_url, {"hook": hook(receiver, SECRET, OTHER_SECRET)}) as at:
        await at.take(alert())
        await eventually(at.entries)

        (request,) = receiver.requests
        assert request.body == alert()
        assert receiver.verified(SECRET) == receiver.verified(OTHER_SECRET) == [msgspec.json.decode(alert())]
        assert request.headers["webhook-id"] == id_of(alert())
        (entry,) = await at.entries()
        assert {**entry, "at": ""} == {
            "alertId": id_of(alert()),
            "destination": "hook",
            "route": "all",
            "attempt": 1,
            "at": "",
            "outcome": "delivered",
            "status": 200,
            "nextAt": None,
            "error": None,
        }


async def test_an_alert_that_comes_again_is_not_sent_again(redis_url: str) -> None:
    async with receiving() as receiver, office(redis_url, {"hook": hook(receiver)}) as at:
        older_than_memory = alert(n=-40_000_000)
        for each in (alert(), alert(), alert(n=1), alert(), older_than_memory):
            await at.take(each)
        await eventually(lambda: is_empty(at))

        assert [alert["alertId"] for alert in receiver.verified()] == [id_of(alert()), id_of(alert(n=1))]


async def test_alerts_arrive_in_order_per_account_through_failures(redis_url: str) -> None:
    chance = random.Random(3)
    accounts = [f"a{n}.com" for n in range(5)]
    flaky = [200, 200, 500, 429, 302, 404]
    async with (
        receiving(lambda _: Answered(chance.choice(flaky))) as receiver,
        receiving() as steady,
        office(redis_url, {"hook": hook(receiver), "steady": hook(steady)}, in_flight=3) as at,
    ):
        for n in range(6):
            for account in accounts:
                await at.take(alert(account, n))
        await eventually(lambda: is_empty(at))

        expected = {account: [id_of(alert(account, n)) for n in range(6)] for account in accounts}
        assert receiver.by_account() == steady.by_account() == expected
        assert len(steady.requests) == 30


async def test_a_receiver_that_hangs_holds_up_nobody_else(redis_url: str) -> None:
    async with (
        receiving(lambda _: Answered(after_seconds=60)) as hanging,
        receiving() as steady,
        office(redis_url, {"hook": hook(hanging), "steady": hook(steady)}, in_flight=2) as at,
    ):
        began = asyncio.get_running_loop().time()
        for n in range(10):
            await at.take(alert(f"a{n}.com"))
        await eventually(lambda: answered(len(steady.requests) == 10))

        assert asyncio.get_running_loop().time() - began < 1.0
        assert len(hanging.requests) == 2
        await eventually(lambda: outcomes_are(at, "retry"))
        assert (await told(at, "retry"))["error"] == "no answer within 1 s"


async def test_a_redirect_is_a_failure_and_never_followed(redis_url: str) -> None:
    async with (
        receiving() as elsewhere,
        receiving(
            lambda requests: Answered(307 if len(requests) < 3 else 200, {"location": elsewhere.url})
        ) as receiver,
        office(redis_url, {"hook": hook(receiver)}) as at,
    ):
        await at.take(alert())
        await eventually(lambda: is_empty(at))

        assert await at.outcomes() == ["retry", "retry", "delivered"]
        assert [entry["status"] for entry in await at.entries()] == [307, 307, 200]
        assert elsewhere.requests == []
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


async def test_a_receiver_that_asks_for_patience_gets_it(redis_url: str) -> None:
    async with receiving(patience) as receiver, office(redis_url, {"hook": hook(receiver)}) as at:
        await at.take(alert())
        await eventually(lambda: is_empty(at))

        before, after = receiver.requests
        assert 1.0 <= after.at - before.at < 1.9
        assert await at.outcomes() == ["retry", "delivered"]


async def test_410_turns_a_destination_off_until_it_is_turned_on(redis_url: str) -> None:
    async with receiving(first(410)) as receiver, office(redis_url, {"hook": hook(receiver)}) as at:
        await at.take(alert())
        await eventually(lambda: at.tables.off("hook"))
        await at.take(alert(n=1))
        await at.take(alert("beta.io"))
        await asyncio.sleep(0.3)

        assert len(receiver.requests) == 1
        assert await at.outcomes() == ["off", "off", "off"]
        (waiting,) = await at.tables.waiting(["hook"])
        assert (waiting.alerts, waiting.queues, waiting.off and waiting.off["why"]) == (3, 2, "HTTP 410")
        assert await at.tables.turn_on("hook", now())
        assert not await at.tables.turn_on("hook", now())
        await eventually(lambda: is_empty(at))
        assert len(receiver.requests) == 4


async def test_what_nobody_takes_becomes_a_dead_letter_and_the_next_is_tried(redis_url: str) -> None:
    async with (
        receiving(always(500)) as receiver,
        office(redis_url, {"hook": hook(receiver)}, give_up_seconds=0.3) as at,
    ):
        await at.take(alert())
        await at.take(alert(n=1))
        await eventually(lambda: is_empty(at))

        letters = await at.letters()
        assert [letter["id"] for letter in letters] == [f"alerts:{id_of(alert(n=n))}:hook" for n in range(2)]
        assert [letter["original"] for letter in letters] == [alert().decode(), alert(n=1).decode()]
        assert (letters[0]["partition"], letters[0]["offset"], letters[0]["got"]) == (1, 2, "HTTP 500")
        assert (await at.outcomes())[-1] == "dead"


async def test_what_is_no_alert_becomes_a_dead_letter(redis_url: str) -> None:
    async with receiving() as receiver, office(redis_url, {"hook": hook(receiver)}) as at:
        await at.take(b'{"no": "alert"}')

        (letter,) = await at.letters()
        assert (letter["id"], letter["lane"], letter["original"]) == ("alerts:1:2", "deliver", '{"no": "alert"}')


async def test_a_private_address_is_refused_unless_it_is_allowed(redis_url: str) -> None:
    async with receiving() as receiver:
        named = receiver.url.replace("127.0.0.1", "localhost")
        destinations = {
            "address": {**hook(receiver), "allow_private": False},
            "name": {**hook(receiver), "url": named, "allow_private": False},
            "mail": mail(1, allow_private=False),
        }
        async with office(redis_url, destinations) as at:
            await at.take(alert())
            for name in destinations:
                await eventually(lambda name=name: at.outcomes(name))  # type: ignore[misc]

            assert [entry["error"] for entry in await at.entries() if "no public address" not in entry["error"]] == []
            assert receiver.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
    ],
)
def test_public_addresses_are_those_of_the_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


# --- several processes ------------------------------------------------------------------


async def test_two_processes_never_send_the_same_alert(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving(lambda _: Answered(after_seconds=0.01)))
        one = await stack.enter_async_context(office(redis_url, {"hook": hook(receiver)}))
        await stack.enter_async_context(office(redis_url, {"hook": hook(receiver)}))
        for n in range(4):
            for account in range(10):
                await one.take(alert(f"a{account}.com", n))
        await eventually(lambda: is_empty(one))

        assert len(receiver.requests) == 40
        assert all(len(ids) == 4 for ids in receiver.by_account().values())


async def test_a_queue_whose_process_died_is_taken_over_when_its_claim_ends(redis_url: str) -> None:
    async with receiving() as receiver, office(redis_url, {"hook": hook(receiver)}, start=False) as at:
        await at.take(alert())
        died = await at.tables.claim("hook", now())
        assert isinstance(died, Claim)
        lease = (CLAIM_SECONDS + 1) * SECOND

        assert isinstance(until := await at.tables.claim("hook", now()), int)
        assert until - now() == pytest.approx(lease, abs=SECOND)
        again = await at.tables.claim("hook", now() + lease + SECOND)
        assert isinstance(again, Claim)
        assert again.items == died.items
        assert not await at.tables.settle(died, settled_of(died), now())
        assert await at.tables.settle(again, settled_of(again), now())
        assert await is_empty(at)


def settled_of(claim: Claim) -> Any:
    from models.dispatch import Settled

    return Settled("delivered", claim.standing, len(claim.items), None)


# --- Slack, mail, Alertmanager ----------------------------------------------------------


async def test_slack_gets_one_message_an_account_after_quiet_hours(redis_url: str) -> None:
    always_quiet = [{"from": "00:00", "to": "23:59"}, {"from": "23:59", "to": "00:00", "days": ["mon"]}]
    routes = [{"name": "all", "to": ["chat", "hook"], "quiet": always_quiet}]
    async with (
        receiving() as slack,
        receiving() as receiver,
        office(
            redis_url, {"chat": {"kind": "slack", "url": slack.url}, "hook": hook(receiver)}, routes, start=False
        ) as at,
    ):
        for n, account in enumerate(("acme.com", "beta.io", "acme.com", "acme.com")):
            await at.take(alert(account, n))
        held = await at.entries()
        assert {entry["outcome"] for entry in held} == {"held"}
        assert all(entry["nextAt"] > entry["at"] for entry in held)
        await end_of_hold(at)
        await at.couriers.start()
        await eventually(lambda: is_empty(at))

        texts = sorted((request.json["text"] for request in slack.requests), key=len)
        assert [text.count("is warm again") for text in texts] == [1, 3]
        assert [len(ids) for ids in receiver.by_account().values()] == [3, 1]
        assert (await at.outcomes("chat")).count("delivered") == 4


async def test_a_digest_is_one_mail_with_the_same_id_however_often_it_is_tried(redis_url: str) -> None:
    routes = [{"name": "day", "to": ["mail"], "mode": "daily"}]
    async with (
        post_office("451 try later") as box,
        office(redis_url, {"mail": mail(box.port)}, routes, start=False) as at,
    ):
        for account in ("acme.com", "beta.io", "gamma.io"):
            await at.take(alert(account))
        await end_of_hold(at)
        await at.couriers.start()
        await eventually(lambda: is_empty(at))

        (sent,) = box.mails
        assert sent["Message-ID"] == box.refused[0]["Message-ID"]
        assert sent["Subject"].startswith("day: 3 alerts, ")
        assert sent["To"] == "sales@example.com"
        body = str(sent.get_payload(decode=True), "utf-8")
        assert body.index("acme.com") < body.index("beta.io") < body.index("gamma.io")
        assert await at.outcomes("mail") == ["held"] * 3 + ["retry"] * 3 + ["delivered"] * 3
        assert {entry["status"] for entry in await at.entries()} == {None, 451, 250}


async def test_an_alertmanager_is_told_again_until_it_is_resolved(redis_url: str) -> None:
    routes = [{"name": "warm", "to": ["ops"], "transitions": ["warmed"]}]
    async with (
        receiving(first(503)) as manager,
        office(redis_url, {"ops": {"kind": "alertmanager", "url": manager.url}}, routes) as at,
    ):
        await at.take(alert())
        await eventually(lambda: answered(len(manager.requests) >= 4))
        await at.take(alert(n=9, transition="cooled"))
        await eventually(lambda: is_empty(at))
        told = [request.json[0] for request in manager.requests]

        assert {each["labels"]["alertname"] for each in told} == {"AccountWarm"}
        assert {each["startsAt"] for each in told} == {to_text(BEGAN)}
        assert [each["endsAt"] for each in told][-1] == to_text(BEGAN + 9 * SECOND)
        assert all(each["endsAt"] > to_text(now()) for each in told[:-1])
        assert await at.outcomes("ops") == ["retry", "delivered"]
        count = len(manager.requests)
        await asyncio.sleep(0.5)
        assert len(manager.requests) == count


async def test_a_test_alert_goes_at_once_and_leaves_nothing_firing(redis_url: str) -> None:
    routes = [{"name": "day", "to": ["hook"], "mode": "daily"}, {"name": "ops", "to": ["ops"]}]
    async with (
        receiving() as receiver,
        receiving() as manager,
        office(redis_url, {"hook": hook(receiver), "ops": {"kind": "alertmanager", "url": manager.url}}, routes) as at,
    ):
        test = msgspec.json.encode(sample_alert("al_test", to_text(BEGAN)))
        await at.take(test, ("touchline-route", "day"), ("touchline-route", "ops"))
        await eventually(lambda: is_empty(at))

        assert receiver.verified()[0]["test"] is True
        assert len(manager.requests) == 1


# --- what the tests ask -----------------------------------------------------------------


def mail(port: int, **more: Any) -> dict[str, Any]:
    address = "Touchline <touchline@example.com>"
    return {
        "kind": "email", "host": "127.0.0.1", "port": port, "tls": "none", "from": address,
        "to": ["sales@example.com"], **more,
    }  # fmt: skip


async def end_of_hold(at: Office) -> None:
    """Let what is held be due now, as if the hours had passed."""
    for key in await at.redis.keys("{deliver}:queue:*"):
        items = [msgspec.msgpack.decode(each) for each in await at.redis.lrange(key, 0, -1)]
        await at.redis.delete(key)
        for each in items:
            each[4] = 0
            await at.redis.rpush(key, msgspec.msgpack.encode(each))
    for key in await at.redis.keys("{deliver}:due:*"):
        for queue in await at.redis.zrange(key, 0, -1):
            await at.redis.zadd(key, {queue: 0})


async def is_empty(at: Office) -> bool:
    return not any(waiting.queues for waiting in await at.tables.waiting(at.settings.destinations))


async def answered(holds: bool) -> bool:
    return holds


async def outcomes_are(at: Office, outcome: str) -> bool:
    return outcome in await at.outcomes()


async def told(at: Office, outcome: str) -> dict[str, Any]:
    return next(entry for entry in await at.entries() if entry["outcome"] == outcome)


def patience(requests: list[Request]) -> Answered:
    return Answered(429, {"Retry-After": "1"}) if len(requests) == 1 else Answered()
