"""How much is left of something that halves again and again: powers 2^(−age/half-life), exact to 50 digits.

A power is a product over the digits of the age, each looked up in a table: a fixed-point
integer of BITS binary places. After whole half-lives it is exact.
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Final

BITS: Final = 192
ONE: Final = 1 << BITS
_DIGIT_BITS: Final = 11
_DIGIT: Final = (1 << _DIGIT_BITS) - 1

Tables = tuple[tuple[int, ...], ...]
"""Per digit of an age below the half-life, 2^(−digit·unit/half-life) of its every value."""


@lru_cache(maxsize=16)
def decay_tables(half_life: int) -> Tables:
    """The tables of a half-life in microseconds."""
    digits = -(-half_life.bit_length() // _DIGIT_BITS)
    return tuple([_decay_table(_DIGIT_BITS * digit, half_life) for digit in range(digits)])


def _decay_table(shift: int, half_life: int) -> tuple[int, ...]:
    guard = 64
    with localcontext(prec=90):
        power = int((Decimal(2) ** (-Decimal(1 << shift) / half_life)) * (ONE << guard))
    table = [ONE << guard]
    while len(table) <= _DIGIT:
        table.append(table[-1] * power >> (BITS + guard))
    return tuple([value >> guard for value in table])


def power(left: int, tables: Tables) -> int:
    """2^(−left/half-life) of an age below the half-life, times ONE."""
    weight = tables[0][left & _DIGIT]
    for number in range(1, len(tables)):
        left >>= _DIGIT_BITS
        weight = weight * tables[number][left & _DIGIT] >> BITS
    return weight
