"""Customers of billing systems, such as `stripe:cus_1`: whose they are is the latest claim's to say.

The step of the accounts lane. A customer reports to the account that claimed it last; what
bills say of the customer finds its account here.
"""

import msgspec

from models.entity import Conflict, Contents, Reporter
from models.facts import Fact
from models.reports import CLAIM, CUSTOMER, pack

_claim = msgspec.msgpack.Decoder(tuple[int, str, str]).decode


class Customer(Reporter):
    """One customer id: the accounts that claim it, and the one that it reports to."""

    __slots__ = ()
    kind = "customer"

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """No fact is about a customer alone."""
        raise TypeError(f"no fact of a customer: {fact!r}")

    @property
    def account(self) -> str | None:
        """The account that claimed the customer last."""
        claims = [_claim(value) for name, value in self.parts.items() if name[0] == CLAIM]
        return max(claims)[2] if claims else None

    def _contents(self) -> Contents:
        account = self.account
        return {} if account is None else {f"account:{account}": {f"{CUSTOMER}:{self.name}": pack(None)}}
