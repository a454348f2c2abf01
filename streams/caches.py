"""What a lane partition has at hand, so that Redis is asked once."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The values used last: between `most` and twice as many are kept, and those put at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """The values of keys, which thereby count as used, and the keys that are missing."""
        found: dict[K, V] = {}
        missing: list[K] = []
        new, old = self._new, self._old
        for key in keys:
            value = new.get(key)
            if value is None and (value := old.pop(key, None)) is not None:
                new[key] = value
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        return found, missing

    def put(self, values: Mapping[K, V]) -> None:
        """Keep the values; may forget those not used for long."""
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        self._new.update(values)

    def clear(self) -> None:
        """Forget everything."""
        self._new, self._old = {}, {}
