"""A dated rate, as the settings have it."""

import msgspec


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "target": "to"}):
    """From `date` on, 1 unit of `from` is `rate` units of `to`."""

    date: str
    source: str
    target: str
    rate: str
