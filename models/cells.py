"""Cells: where credits are added up, by conversion, dimension, day or month, and value."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

MONTH = len("2026-04")
"""How much of a day's name is that of its month."""


class Cell(NamedTuple):
    """Where a credit is added up; `value` None is a touch without the dimension."""

    conversion: str
    dimension: str
    day: str
    value: str | None


new_cell: Callable[[tuple[str, str, str, str | None]], Cell] = partial(tuple.__new__, Cell)
"""Cell(…) by half its cost: a conversion has dozens."""


Cells = dict[Cell, int]
"""Cells with their numbers as one integer (models.vectors): adding cells is adding integers."""


def add_cells_of(cells: Cells, others: Cells) -> None:
    """Add other cells to these."""
    for cell, numbers in others.items():
        cells[cell] = cells.get(cell, 0) + numbers


def without_zeros(cells: Mapping[Cell, int]) -> Cells:
    """The cells in which anything is left."""
    return {cell: numbers for cell, numbers in cells.items() if numbers}


def by_month(cells: Mapping[Cell, int]) -> Cells:
    """The cells added up by month, which stands where a cell has its day: long periods are read from these."""
    months: Cells = {}
    for (conversion, dimension, day, value), numbers in cells.items():
        cell = new_cell((conversion, dimension, day[:MONTH], value))
        months[cell] = months.get(cell, 0) + numbers
    return months
