"""Waiting for servers that are away, and for nothing else."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from models.errors import BadInput, Unavailable
from streams import reaching


async def test_a_step_is_taken_again_until_the_servers_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "FIRST_PAUSE_SECONDS", 0.0)
    troubles: list[Exception] = [Unavailable("Kafka"), RedisConnectionError("Redis")]

    async def step() -> str:
        if troubles:
            raise troubles.pop()
        return "done"

    assert await reaching.until_it_works(step) == "done"


async def test_a_step_that_fails_for_another_reason_is_not_taken_again() -> None:
    async def step() -> None:
        raise BadInput("redis.url", "another", "this")

    with pytest.raises(BadInput):
        await reaching.until_it_works(step)


async def test_no_step_is_taken_once_all_is_ending() -> None:
    async def step() -> None:
        raise AssertionError("taken")

    assert await reaching.until_it_works(step, lambda: True) is None
