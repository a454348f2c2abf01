"""What accounts are called, for those who show them: people know companies by name, not by id."""

from collections.abc import Iterable
from typing import Any

from models.partitions import partition_of
from models.settings import Settings
from streams.keys import table_key


async def names_of(redis: Any, settings: Settings, accounts: Iterable[str]) -> dict[str, str]:
    """The names of those of these accounts that have one."""
    asked = list(dict.fromkeys(accounts))
    pipeline = redis.pipeline(transaction=False)
    for account in asked:
        pipeline.hget(_key(settings, partition_of(account, settings.partitions)), account)
    found = zip(asked, await pipeline.execute() if asked else [], strict=True)
    return {account: name.decode() for account, name in found if name is not None}


async def every_name(redis: Any, settings: Settings) -> dict[str, str]:
    """The names of all accounts that have one; for the audit, not for reports."""
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.hgetall(_key(settings, partition))
    return {account.decode(): name.decode() for fields in await pipeline.execute() for account, name in fields.items()}


def _key(settings: Settings, partition: int) -> str:
    return table_key(settings, "accounts", partition, "names")
