"""Numbers side by side in one integer, which adds up as they do; and as they lie at rest."""

from array import array
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=1000)
def _signs(width: int) -> int:
    return sum(1 << (64 * place + 63) for place in range(width))


def vector(numbers: Sequence[int]) -> int:
    """A cell's numbers as one integer Σ number·2^(64·place): sums of vectors are vectors of sums.

    Exact while every sum stays within 64 bits, signs included.
    """
    signs = _signs(len(numbers))
    return (int.from_bytes(array("q", numbers).tobytes(), "little") ^ signs) - signs


def pack_vector(numbers: int) -> bytes:
    """A vector as signed 64-bit integers, little-endian, as many as it needs: zeros at its end are left out."""
    width = numbers.bit_length() // 64 + 1
    signs = _signs(width)
    return ((numbers + signs) ^ signs).to_bytes(8 * width, "little")


def unpack_vector(value: bytes) -> int:
    """The vector packed in `value`."""
    signs = _signs(len(value) // 8)
    return (int.from_bytes(value, "little") ^ signs) - signs


def numbers_of(numbers: int, width: int) -> list[int]:
    """A vector's first `width` numbers: count (millionths) and amount (minor units) of each model in turn."""
    return padded(unpack_numbers(pack_vector(numbers)), width)


def padded(numbers: Sequence[int], width: int) -> list[int]:
    """The numbers with zeros up to that many."""
    return [*numbers[:width], *[0] * (width - len(numbers))]


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Signed 64-bit integers, little-endian."""
    return array("q", numbers).tobytes()


def unpack_numbers(value: bytes) -> list[int]:
    """The integers packed in `value`."""
    return array("q", value).tolist()
