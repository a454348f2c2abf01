"""Filters: which accounts a total is asked of, by their attributes.

An account carries one label for each of its attributes, `industry=software`. For the
attributes in the setting `filters` every total is kept a second time under the labels of
its account: the same cells and counts, their first name behind `<label>/`. What no label
holds is the unfiltered total less all labels of the attribute: the filtered totals of an
attribute add up to the unfiltered one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from models.cells import Cells
from models.counts import Count, Counts, Numbers
from models.errors import BadInput
from models.naming import is_naming
from models.paths import counts_paths
from models.profiles import Profile, compared

NONE = "(none)"
"""What stands for no value and no account."""
ATTRIBUTES = "attributes"
"""Table of counts: label → how many accounts carry it."""

USUAL = frozenset(("industry", "size", "country", "owner", "segment"))
"""Attributes that may be asked for where no account has them yet; a name of another kind is taken for a slip."""

Labels = frozenset[str]
NO_LABELS: Labels = frozenset()


class Condition(NamedTuple):
    """An attribute and its alternatives, as they are compared; None: no value."""

    attribute: str
    values: frozenset[str | None]

    @property
    def labels(self) -> Labels:
        """The labels that fulfil it."""
        return frozenset(label_of(self.attribute, value) for value in self.values if value is not None)


Where = tuple[Condition, ...]
"""Conditions that all hold; none: every account."""


def label_of(attribute: str, value: str) -> str:
    """The label of an attribute's value; holds no `/` but the one it ends before.

    >>> label_of("industry", "food / drinks")
    'industry=food%20%2F%20drinks'
    """
    return f"{quote(attribute, safe='')}={quote(value, safe='')}"


def parts_of(label: str) -> tuple[str, str]:
    """The attribute and value of a label."""
    attribute, _, value = label.partition("=")
    return unquote(attribute), unquote(value)


def labels_of(profile: Profile) -> Labels:
    """The labels of an account."""
    return frozenset(label_of(name, compared(name, value)) for name, value in profile.attributes.items())


def kept_labels(labels: Labels, filters: Iterable[str]) -> Labels:
    """Those labels under which totals are kept."""
    return frozenset(label for label in labels if parts_of(label)[0] in filters) if labels else NO_LABELS


def under(label: str, name: str) -> str:
    """The name under a label; without one the name as it is."""
    return f"{label}/{name}" if label else name


def label_in(name: str) -> str:
    """The label that a name stands under; empty without one."""
    label, split, _ = name.partition("/")
    return label if split and "=" in label and ":" not in label else ""


def cells_under(label: str, cells: Cells) -> Cells:
    """The cells as they are kept under a label."""
    return {cell._replace(conversion=under(label, cell.conversion)): numbers for cell, numbers in cells.items()}


def counts_under(label: str, counts: Mapping[Count, Numbers]) -> Counts:
    """The counts as they are kept under a label; paths and the order of stages are asked of all accounts."""
    return {
        Count(under(label, count.table), count.field): numbers
        for count, numbers in counts.items()
        if not (label and (counts_paths(count.table) or is_naming(count.table)))
    }


def attribute_counts(labels: Iterable[str]) -> Iterator[tuple[Count, Numbers]]:
    """What an account adds to the number of accounts by attribute and value."""
    return ((Count(ATTRIBUTES, label), (1,)) for label in labels)


def parse_where(conditions: Iterable[str]) -> Where:
    r"""Conditions such as `industry=software,retail`; `\,` is a comma within a value.

    Values are alternatives, `(none)` is no value; several conditions on one attribute
    must all hold. Raises BadInput when one is none.
    """
    return tuple(_condition(text) for text in conditions)


def _condition(text: str) -> Condition:
    name, split, values = text.partition("=")
    attribute = name.strip().lower()
    if not split or not attribute:
        raise BadInput("where", "attribute=value,value such as industry=software,retail", text)
    return Condition(attribute, frozenset(_value(attribute, value) for value in _alternatives(values)))


def _alternatives(text: str) -> list[str]:
    return [value.replace("\0", ",") for value in text.replace("\\,", "\0").split(",")]


def _value(attribute: str, text: str) -> str | None:
    value = compared(attribute, text)
    return None if value in ("", NONE) else value


def matches(where: Where, labels: Labels) -> bool:
    """Does an account with these labels fulfil every condition?"""
    return all(_fulfils(condition, labels) for condition in where)


def _fulfils(condition: Condition, labels: Labels) -> bool:
    carried = [label for label in labels if parts_of(label)[0] == condition.attribute]
    return any(label in condition.labels for label in carried) if carried else None in condition.values
