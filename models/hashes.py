"""How totals lie in hashes: cells by conversion and dimension, counts by table."""

from collections.abc import Iterable
from typing import TypeVar

from models.cells import MONTH, Cell, Cells
from models.counts import Count, Counts
from models.vectors import pack_numbers, pack_vector

_Hash = TypeVar("_Hash")

Place = tuple[str, str, bool]
"""Which cells stand together: those of one conversion and dimension, by day or (True) by month."""


def place_of(cell: Cell) -> Place:
    """Where a cell stands."""
    conversion, dimension, day, _ = cell
    return conversion, dimension, len(day) == MONTH


def cell_field(cell: Cell) -> str:
    """The field of a cell in the place where it stands."""
    _, _, day, value = cell
    return day if value is None else f"{day}\0{value}"


def by_place(cells: Iterable[Cell]) -> dict[Place, list[tuple[str, Cell]]]:
    """The cells and their fields by where they stand."""
    places: dict[Place, list[tuple[str, Cell]]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append((cell_field(cell), cell))
    return places


def by_table(counts: Iterable[Count]) -> dict[str, list[tuple[str, Count]]]:
    """The counts and their fields by table."""
    tables: dict[str, list[tuple[str, Count]]] = {}
    for count in counts:
        tables.setdefault(count.table, []).append((count.field, count))
    return tables


Packed = tuple[list[str | bytes], list[str]]
"""What is written of a hash: fields and values in turn, and the fields that are gone."""


def packed_by_place(cells: Cells) -> dict[Place, Packed]:
    """What is written for cells as they are now."""
    places: dict[Place, Packed] = {}
    for cell, numbers in cells.items():
        _pack(places, place_of(cell), cell_field(cell), pack_vector(numbers) if numbers else b"")
    return places


def packed_by_table(counts: Counts) -> dict[str, Packed]:
    """What is written for counts as they are now."""
    tables: dict[str, Packed] = {}
    for (table, field), numbers in counts.items():
        _pack(tables, table, field, pack_numbers(numbers) if any(numbers) else b"")
    return tables


def _pack(hashes: dict[_Hash, Packed], name: _Hash, field: str, value: bytes) -> None:
    """Note what is written of a field; nothing: it is gone."""
    packed = hashes.get(name)
    if packed is None:
        packed = hashes[name] = [], []
    kept, gone = packed
    if value:
        kept.append(field)
        kept.append(value)
    else:
        gone.append(field)
