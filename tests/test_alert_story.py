"""From the fact to the message, on real servers: an ad revives an account that had cooled after a demo."""

import asyncio
import time
from pathlib import Path

import pytest

from models.settings import Settings
from models.times import DAY, SECOND, to_text
from streams.topics import create_topics
from tests.conftest import eventually
from tests.receiving import Receiver, receiving
from tests.running import Fact, account, deal, identify, page, touch
from tests.test_deliver import Post

pytestmark = pytest.mark.slow

AD = "https://site.example/pricing?utm_source=adroll&utm_medium=retargeting&utm_campaign=come-back"


async def test_the_alert_names_the_ad_and_says_what_had_cooled_the_account(settings: Settings, tmp_path: Path) -> None:
    async with receiving() as hook, receiving() as slack:
        post = Post(settings, tmp_path, hook.url)
        with (tmp_path / "touchline.toml").open("a") as config:
            config.write(
                f"""
                [[routes]]
                name = "chat"
                to = ["chat"]
                transitions = ["rewarmed"]
                cause_channels = ["retargeting"]
                open_deal = true
                [destinations.chat]
                kind = "slack"
                url = "{slack.url}"
                allow_private = true
                """
            )
        await create_topics(settings)
        with post.deliverer("one"), post.worker():
            await asyncio.to_thread(post.produce, before(time.time_ns() // 1000))
            await asyncio.to_thread(post.run, "wait", "--timeout", "60")
            assert hook.requests == []
            await asyncio.to_thread(post.produce, revival(time.time_ns() // 1000))
            await eventually(lambda: has_one(hook), 30)
            await eventually(lambda: has_one(slack), 30)

        (alert,) = hook.verified()
        assert (alert["account"]["id"], alert["transition"], alert["rewarmed"]) == ("acme.com", "warming", True)
        assert {cause["campaign"] for cause in alert["causes"]} == {"come-back"}
        assert alert["cooled"]["lastTouches"][0]["kind"] == "demo"
        text = slack.requests[0].json["text"]
        assert "Acme (acme.com) is warming up again" in text
        assert 'via retargeting campaign "come-back" by ann@acme.com' in text
        assert "last touch demo via sales_outbound by bob@acme.com with Grace" in text
        assert '"Big" 1,000.00 USD in stage proposal for' in text
        assert "Owner: Grace" in text


def before(now: int) -> list[Fact]:
    """A month ago and more: a meeting, a call and a demo, then nothing."""
    at = [to_text(now - days * DAY) for days in (70, 68, 66, 65)]
    return [
        account("acme.com", at[0], "a1", name="Acme"),
        identify("i1", at[0], "v1", "ann@acme.com"),
        deal("D1", at[0], "d1", account="acme.com", name="Big", amount="1000.00", stage="proposal", owner="Grace"),
        touch("t1", at[1], "ann@acme.com", "meeting", rep="Grace"),
        touch("t2", at[2], "bob@acme.com", "call", rep="Grace"),
        touch("t3", at[3], "bob@acme.com", "demo", rep="Grace"),
    ]


def revival(now: int) -> list[Fact]:
    """Today: an ad brings her back to the pricing page, and she asks for more."""
    form = {
        "type": "track", "event": "Form Submitted", "messageId": "f1", "anonymousId": "v1",
        "timestamp": to_text(now - 10 * SECOND), "properties": {"email": "ann@acme.com"},
    }  # fmt: skip
    return [page("p1", to_text(now - 60 * SECOND), "v1", AD), ("form-fills", form)]


async def has_one(receiver: Receiver) -> bool:
    return len(receiver.requests) == 1
