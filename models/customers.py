"""Customers of billing systems, such as `stripe:cus_1`: whose they are is the latest claim's to say.

The step of the accounts lane. A customer reports to the account that claimed it last; what
bills say of the customer finds its account here.
"""

import msgspec

from models.entity import Conflict, Contents, Outcome, reports, take
from models.facts import Fact
from models.reports import CLAIM, CUSTOMER, Changes, Message, Parts, Report, pack, tag_of

_claim = msgspec.msgpack.Decoder(tuple[int, str, str]).decode


class Customer:
    """One customer id: the accounts that claim it, and the one that it reports to."""

    __slots__ = ("_dirty", "_told", "name", "parts", "tag")

    def __init__(self, name: str, parts: Parts) -> None:
        self.name = name
        self.tag = tag_of(f"customer:{name}")
        self.parts = parts
        self._dirty: Changes = {}
        self._told = self._contents()

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """No fact is about a customer alone."""
        raise TypeError(f"no fact of a customer: {fact!r}")

    def receive(self, message: Message) -> None:
        """Take an account's claim, or its withdrawal."""
        if not isinstance(message, Report):
            raise TypeError(f"no message to a customer: {message!r}")
        self._dirty.update(take(self.parts, message))

    def flush(self) -> Outcome:
        """The customer told to its account."""
        told = self._contents()
        messages: list[Message] = list(reports(self._told, told, self.tag))
        changes, self._dirty, self._told = self._dirty, {}, told
        return Outcome(changes, messages)

    @property
    def account(self) -> str | None:
        """The account that claimed the customer last."""
        claims = [_claim(value) for name, value in self.parts.items() if name[0] == CLAIM]
        return max(claims)[2] if claims else None

    def _contents(self) -> Contents:
        account = self.account
        return {} if account is None else {f"account:{account}": {f"{CUSTOMER}:{self.name}": pack(None)}}
