"""Hits: the page views of a visitor, as the visitor keeps them."""

import msgspec

from models.channels import Origin


class Hit(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A page view as its visitor keeps it; sorts in order of time.

    `origin` is None for a direct hit; `person` the user id it carried; `is_listed` says that
    its user agent was a known bot's.
    """

    at: int
    id: str
    origin: Origin | None
    path: str
    person: str | None
    is_listed: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """Sorts hits of a visitor among other facts, oldest first."""
        return self.at, self.id


class Columns(msgspec.Struct, array_like=True):
    """The columns of hits, oldest first; empty where a column holds nothing but None or False.

    Ids are as `models.columns` packs them.
    """

    first_at: int
    gaps: list[int]
    ids: bytes | list[str]
    paths: list[str]
    origins: list[Origin | None] = []
    persons: list[str | None] = []
    is_listed: list[bool] = []
