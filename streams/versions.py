"""Versions of the rules: the live one, and previews computed beside it until one takes over.

    preview ▶ lanes of its own read every fact again ▶ caught up ▶ take over: one pointer turns ▶ the old tables go

touchline:live             string  the live version's name; without one it is `""`, whose tables have none
touchline:rules[:<name>]   string  a version's rules (settings as JSON): what its tables were made under
touchline:previews         hash    name → JSON {by, at, changes}
{v2.accounts:3}:…          a version's tables              member-facts.v2   messages between its lanes

A version's tables are a function of the facts and its rules alone, so that nothing of
the live ones has to be moved or stopped. Workers and reports follow the rules kept
here, not their file: a changed file is what the next preview (or rebuild) is made of.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace

from models.errors import BadInput, NotFound
from models.settings import Settings, parse_settings, rules_fingerprint

LIVE_KEY = "touchline:live"
PREVIEWS_KEY = "touchline:previews"
LIVE = "live"
"""What users call the live version, whatever its name."""


class Change(msgspec.Struct, frozen=True):
    """A setting that differs between two versions, in JSON terms; None: absent."""

    setting: str
    old: Any
    new: Any


class Preview(msgspec.Struct, frozen=True):
    """A version that is computed beside the live one: who began it when, and what differs."""

    by: str
    at: str
    changes: list[Change]


def rules_key(version: str) -> str:
    """Where the rules of a version stand."""
    return f"touchline:rules:{version}" if version else "touchline:rules"


async def live_version(redis: Any) -> str:
    """The name of the version whose totals are the totals."""
    return (await redis.get(LIVE_KEY) or b"").decode()


async def in_force(redis: Any, settings: Settings, version: str | None = None) -> Settings:
    """The settings of this process under the rules of a version, by default the live one's.

    Before any table is made those are the process's own. Raises NotFound for a version
    that does not exist.
    """
    name = await _name_of(redis, version)
    rules = await redis.get(rules_key(name))
    if rules is None and version not in (None, LIVE):
        raise NotFound(f"no version {version} of the settings is known")
    kept = settings if rules is None else under(settings, rules)
    return replace(kept, lanes=replace(kept.lanes, version=name))


async def _name_of(redis: Any, version: str | None) -> str:
    return await live_version(redis) if version in (None, LIVE) else str(version)


def under(settings: Settings, rules: bytes | str) -> Settings:
    """The settings with other rules: where servers are and how this process works stays."""
    own: dict[str, Any] = msgspec.to_builtins(settings)
    return parse_settings({**own, **orjson.loads(rules)})


def rules_of(settings: Settings) -> dict[str, Any]:
    """The rules among the settings, in JSON terms."""
    rules: dict[str, Any] = orjson.loads(rules_fingerprint(settings))
    return rules


def changes_between(old: Settings, new: Settings) -> list[Change]:
    """The settings that differ, nested ones by their path, such as `lookback.won`."""
    before, after = _flat(rules_of(old)), _flat(rules_of(new))
    names = sorted({*before, *after})
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _flat(rules: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in rules.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


async def previews(redis: Any) -> dict[str, Preview]:
    """The previews there are, by name."""
    found = await redis.hgetall(PREVIEWS_KEY)
    return {name.decode(): msgspec.json.decode(value, type=Preview) for name, value in found.items()}


def check_name(name: str) -> str:
    """The name of a new version; BadInput unless it is a few plain letters, digits and dashes."""
    plain = name.replace("-", "").replace("_", "")
    if not plain.isalnum() or not plain.isascii() or len(name) > 32 or name == LIVE:
        raise BadInput("version", "1 to 32 letters, digits, - and _, and not `live`", name)
    return name
