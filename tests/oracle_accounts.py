"""Who an account is, from the written rules alone (rules-more.md, "Accounts and their attributes").

It shares no code with the product; `tests/oracle.py` says which account counts for which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.oracle import Accounts, Fact

BANDS = ((10, "1-10"), (50, "11-50"), (200, "51-200"), (1000, "201-1000"), (5000, "1001-5000"))
FIELDS = ("name", "parent", "quiet")
Said = dict[str, tuple[tuple[int, bytes], Any]]


def profiles(facts: Sequence[Fact], accounts: Accounts) -> dict[str, dict[str, Any]]:
    """Of each account that stands for itself: its name, parent, whether it is quiet, and its attributes."""
    said: dict[str, Said] = {}
    for fact in facts:  # in order of time
        if fact.topic == "account-changes":
            learn(said.setdefault(fact.key or "", {}), fact)
    found: dict[str, dict[str, Any]] = {}
    for root in {accounts.resolve(account) for account in said}:
        merged = [said[account] for account in said if accounts.resolve(account) == root and account != root]
        values = filled(said.get(root, {}), merged)
        profile = {name: values.get(name) for name in FIELDS}
        profile["quiet"] = profile["quiet"] is True
        profile["attributes"] = {name[1:]: value for name, value in values.items() if name.startswith("@")}
        found[root] = profile
    return found


def learn(said: Said, fact: Fact) -> None:
    """ "Absent = unchanged, null = cleared, latest per field and per attribute." An attribute's name begins with @."""
    for name in FIELDS:
        if name in fact.body:
            said[name] = fact.order, tidied(fact.body[name])
    if "attributes" in fact.body:
        attributes = fact.body["attributes"]
        if attributes is None:
            for name in [name for name in said if name.startswith("@")]:
                said[name] = fact.order, None
        for name, value in (attributes or {}).items():
            said["@" + name.strip().lower()] = fact.order, tidied(value)


def tidied(value: Any) -> Any:
    return (value.strip() or None) if isinstance(value, str) else value


def filled(own: Said, merged: Sequence[Said]) -> dict[str, Any]:
    """ "a survivor's gaps are filled from merged accounts", by the latest of them that says something"""
    values = {name: value for name, (_, value) in own.items() if value is not None}
    rest = [(order, name, value) for other in merged for name, (order, value) in other.items() if value is not None]
    for _, name, value in sorted(rest, key=lambda each: each[0], reverse=True):
        values.setdefault(name, value)
    return values


def compared(name: str, value: Any) -> str:
    """ "trimmed, compared without case; `size` in bands 1-10, -50, -200, -1000, -5000, more" """
    if name == "size" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return next((band for most, band in BANDS if value <= most), "more")
    if name == "size" and isinstance(value, str):
        value = value.replace("\N{EN DASH}", "-")  # a band as it is written
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip().lower()
