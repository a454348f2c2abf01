"""The channel table: which channel each origin and kind of touch comes through."""

import pytest

from models.channels import Origin, classifier
from models.ids import snake
from models.referrers import referrer_kind
from models.settings import ChannelRule

classify = classifier((), referrer_kind)


@pytest.mark.parametrize(
    ("origin", "kind", "channel"),
    [
        (Origin(source="google", medium="cpc"), "web_session", "paid_search"),
        (Origin(source="facebook", medium="cpc"), "web_session", "paid_social"),
        (Origin(source="linkedin", medium="paid_social"), "web_session", "paid_social"),
        (Origin(source="newsletter", medium="email"), "web_session", "email"),
        (Origin(source="adroll", medium="retargeting"), "web_session", "retargeting"),
        (Origin(source="criteo", medium="display"), "web_session", "display"),
        (Origin(source="shareasale", medium="affiliate"), "web_session", "affiliate"),
        (Origin(source="youtube", medium="video"), "web_session", "video"),
        (Origin(source="google"), "web_session", "organic_search"),
        (Origin(source="chatgpt.com", medium="whatever"), "web_session", "ai_assistant"),
        (Origin(source="some-blog", medium="whatever"), "web_session", "referral"),
        (Origin(click_id="gclid"), "web_session", "paid_search"),
        (Origin(click_id="gclid", referrer="google.com"), "web_session", "paid_search"),
        (Origin(click_id="msclkid"), "web_session", "paid_search"),
        (Origin(click_id="li_fat_id"), "web_session", "paid_social"),
        (Origin(click_id="ttclid"), "web_session", "paid_social"),
        (Origin(click_id="fbclid"), "web_session", "organic_social"),
        (Origin(referrer="google.de"), "web_session", "organic_search"),
        (Origin(referrer="youtube.com"), "web_session", "video"),
        (Origin(referrer="linkedin.com"), "web_session", "organic_social"),
        (Origin(referrer="perplexity.ai"), "web_session", "ai_assistant"),
        (Origin(referrer="partner.io"), "web_session", "referral"),
        (Origin(), "web_session", "direct"),
        (Origin(), "call", "sales_outbound"),
        (Origin(), "email_replied", "sales_outbound"),
        (Origin(), "email_clicked", "email"),
        (Origin(), "webinar", "event"),
        (Origin(), "trial_started", "product"),
        (Origin(), "chat", "direct"),
    ],
)
def test_an_origin_has_its_channel(origin: Origin, kind: str, channel: str) -> None:
    assert classify(origin, kind) == channel


def test_the_operators_rows_come_first() -> None:
    mine = classifier((ChannelRule("partner", source=("acme-*",)),), referrer_kind)

    assert mine(Origin(source="acme-emea", medium="cpc"), "web_session") == "partner"
    assert mine(Origin(source="google", medium="cpc"), "web_session") == "paid_search"


def test_a_channel_on_a_fact_is_brought_to_our_form() -> None:
    assert snake("Paid Search") == "paid_search"
    assert snake(" AI-Assistant ") == "ai_assistant"
