"""Which partition an id belongs to: murmur2, as Kafka's own clients choose it.

Source: org.apache.kafka.common.utils.Utils.murmur2 of the Java client.
"""

from functools import lru_cache
from struct import unpack_from
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 hash.

    Compiled, products overflow 64 bits, which changes nothing in the 32 that are kept.
    """
    length = len(data)
    h: i64 = 0x9747B28C ^ length
    k: i64
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word
        k = k * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    if left := data[length & ~3 :]:
        h = (h ^ int.from_bytes(left, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=300_000)
def partition_of(key: str, partitions: int) -> int:
    """The partition of a record key."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
