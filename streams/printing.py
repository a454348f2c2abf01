"""Rows on the terminal: as a table to read, as JSON, or as CSV.

JSON and CSV carry numbers and instants as they are; tables alone show money in units of its
currency, millionths as decimals, and instants by the second. A nested record is one column for each of its
values, `linear.amount`, in CSV and tables.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from models.money import DECIMALS

Style = Literal["table", "json", "csv"]
STYLES: tuple[Style, ...] = ("table", "json", "csv")
Row = Mapping[str, Any]
MONEY = frozenset((
    "pot", "pipeline", "new_business", "total", "p10", "p50", "p90", "forecast", "came", "last_month",
    "open_times_rate", "average_size", "velocity_per_day",
))  # fmt: skip
"""Columns that hold minor units, besides those whose name ends with `amount`."""
_PLACES = 4
"""Decimals that a table shows at the most."""
_FRACTION = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$")
_SHORT = 20
"""A column so narrow is not folded to make room for a wider one."""


def show(
    rows: Sequence[Row],
    style: Style,
    columns: Sequence[str] = (),
    *,
    document: Any = None,
    millionths: bool = False,
    missing: str = "",
    nothing: str = "(nothing)",
) -> None:
    """Print rows. `columns` come first, and are there even without rows.

    `document` is printed instead as JSON. In tables `millionths` are what columns named
    `count` hold, `missing` stands for None, and `nothing` for a table without rows.
    """
    if style == "json":
        print(json.dumps(list(rows) if document is None else document, ensure_ascii=False))
        return
    flat = [flattened(row) for row in rows]
    names = list(dict.fromkeys((*columns, *(name for row in flat for name in row))))
    if style == "csv":
        print(_csv(names, flat), end="")
    elif not rows:
        print(nothing, end="\n" if nothing else "")
    else:
        _print_table(names, [_worded(row, names, millionths, missing) for row in flat])


def flattened(row: Row, prefix: str = "") -> dict[str, Any]:
    """The row with a column for each value of nested records, and lists as text."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = _listed(value) if isinstance(value, list | tuple) else value
    return flat


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in values)


def _csv(names: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def titled(id: str, name: str | None) -> str:
    """What something is called, with the id by which it is asked for.

    >>> titled("0015g00000A1", "Acme"), titled("acme.com", None)
    ('Acme (0015g00000A1)', 'acme.com')
    """
    return f"{name} ({id})" if name else id


def money(minor: int, currency: str) -> str:
    """Minor units as the currency writes them: 123450 USD is 1,234.50.

    >>> money(-123450, "USD"), money(5, "JPY")
    ('-1,234.50', '5')
    """
    return f"{Decimal(minor).scaleb(-DECIMALS.get(currency, 2)):,}"


def _worded(row: Row, names: Iterable[str], millionths: bool, missing: str) -> list[str]:
    currency = row.get("currency") or ""
    return [_word(name, row.get(name), currency, millionths, missing) for name in names]


def _word(name: str, value: Any, currency: str, millionths: bool, missing: str) -> str:
    kind = name.rpartition(".")[2]
    if value is None:
        return missing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if (kind.endswith("amount") or kind in MONEY) and isinstance(value, int):
        return money(value, currency)
    if kind == "count" and millionths:
        return f"{value / 1_000_000:,.6f}".rstrip("0").rstrip(".")
    if isinstance(value, int | float):
        return f"{round(value, _PLACES):,}"
    return _FRACTION.sub(r"\1Z", str(value))


def _print_table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    numeric = [all(map(_is_number, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        _print_rich(names, lines, numeric)
    else:
        _print_plain(names, lines, numeric)


def _is_number(word: str) -> bool:
    return not word.strip("-0123456789,. %")


def _print_rich(names: Sequence[str], lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widths = _widths(names, lines)
    for name, is_number, width in zip(names, numeric, widths, strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(_title(name), justify=justify, overflow="fold", no_wrap=width <= _SHORT)
    for line in lines:
        table.add_row(*(Text(word) for word in line))
    Console().print(table)


def _print_plain(names: Sequence[str], lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    titles = [_title(name) for name in names]
    widths = _widths(names, lines)
    for line in (titles, *lines):
        words = (
            word.rjust(width) if is_number else word.ljust(width)
            for word, width, is_number in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(words).rstrip())


def _widths(names: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(map(_title, names), *lines, strict=True)]


def _title(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")
