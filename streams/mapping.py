"""Mapping files: which facts a row of somebody else's table means.

    nulls = ["", "NULL"]                        # cells read as absent; default [""]

    [[fact]]                                    # one for each fact a row may yield
    topic = "deal-changes"                      # only for this topic; without it, for any
    where = [{ column = "close_date", present = true }]

    [fact.fields]                               # field of the fact (dotted) = where it comes from
    dealId    = "opportunity_id"                # a column
    messageId = "{opportunity_id}-closed"       # a template
    account   = { column = "company", blank = "null" }
    currency  = { constant = "USD" }
    stage     = { column = "deal_stage", values = { Won = "closed_won", Lost = "closed_lost" } }
    timestamp = { column = "close_date", time = "%Y-%m-%d", zone = "America/New_York" }

A row is a dict: of text cells (CSV) or of JSON values, whose columns may be dotted too.
Nothing here reads or writes files; a compiled map is a function from a row to facts.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from string import Formatter
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from models import times
from models.errors import BadInput, misfit

Row = Mapping[str, Any]
Fields = dict[str, Any]
Getter = Callable[[Row], Any]
"""A field's value in a row; None when the row has none."""


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"among": "in"}):
    """What a column must show for a row to yield the fact; all given parts must hold."""

    column: str
    present: bool | None = None
    among: tuple[str, ...] | None = None
    not_in: tuple[str, ...] | None = None


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a field comes from, and how its value is read.

    In this order: the column, template or constant; `time` or `json` or `split`; `values`;
    `default` where nothing is there; `blank` for what is still absent. `others` says what
    becomes of a value that `values` does not list. A time may be a strptime format, `iso`,
    `epoch_seconds` or `epoch_millis`; `zone` is that of times that do not carry their own.
    """

    column: str | None = None
    template: str | None = None
    constant: Any = None
    time: str | None = None
    zone: str = "UTC"
    json: bool = False
    split: str | None = None
    values: dict[str, Any] | None = None
    others: Literal["keep", "absent", "refuse"] = "keep"
    default: Any = None
    blank: Literal["absent", "null"] = "absent"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fact that a row may yield."""

    fields: dict[str, str | Source]
    topic: str | None = None
    where: tuple[Condition, ...] = ()


class MapFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file as it is written."""

    fact: tuple[Section, ...]
    nulls: tuple[str, ...] = ("",)


class RowMap:
    """A compiled mapping for one topic: `facts` of a row, and the `columns` it reads."""

    def __init__(self, sections: Sequence[Section], nulls: Iterable[str]) -> None:
        absent = frozenset(nulls)
        self.columns = frozenset(name for section in sections for name in _columns(section))
        self._sections = [_compile(section, absent) for section in sections]

    def facts(self, row: Row) -> list[Fields]:
        """The facts a row yields, in the order of the file; none when no `where` holds.

        Raises BadInput when a value cannot be read as its field says.
        """
        return [build(row) for wanted, build in self._sections if wanted(row)]


def read_map(text: str, topic: str, name: str = "map") -> RowMap:
    """The mapping of a TOML text for `topic`; sections of other topics are left out.

    Raises BadInput, naming the place, when the text is no mapping or none is for the topic.
    """
    try:
        parsed = msgspec.convert(tomllib.loads(text), MapFile)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(name, "a TOML file", str(error)) from None
    except msgspec.ValidationError as error:
        raise misfit(error, f"{name}: ") from None
    sections = [section for section in parsed.fact if section.topic in (None, topic)]
    if not sections:
        raise BadInput(f"{name}: fact", f"a [[fact]] for the topic {topic}", [s.topic for s in parsed.fact])
    for number, section in enumerate(sections, start=1):
        _check(section, f"{name}: fact {number}")
    return RowMap(sections, parsed.nulls)


def plain_map(columns: Sequence[str]) -> Getter:
    """The one fact of a CSV row whose columns are field names (dotted).

    Empty cells are absent. A cell that is `true`, `false`, `null`, or a JSON list or object
    is read as such, any other is text.
    """

    def build(row: Row) -> Fields:
        fact: Fields = {}
        for column in columns:
            if (cell := row.get(column, "")) != "":
                place(fact, column, _plain_value(cell))
        return fact

    return build


def place(fact: Fields, field: str, value: Any) -> None:
    """Put `value` at a dotted field, making the objects on the way.

    Raises BadInput when something on the way is a value already.
    """
    *parents, last = field.split(".")
    target = fact
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise BadInput(field, f"an object at {parent}", target)
    target[last] = value


def look_up(row: Row, column: str) -> Any:
    """The cell of a column: by its whole name, else as a dotted path; None when absent."""
    value: Any = row.get(column)
    if value is not None or "." not in column:
        return value
    value = row
    for step in column.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _plain_value(cell: Any) -> Any:
    if not isinstance(cell, str) or not (cell in ("true", "false", "null") or cell[0] in "[{"):
        return cell
    try:
        return msgspec.json.decode(cell)
    except msgspec.DecodeError:
        return cell


def _compile(section: Section, nulls: frozenset[str]) -> tuple[Callable[[Row], bool], Callable[[Row], Fields]]:
    conditions = [_condition(condition, nulls) for condition in section.where]
    getters = [
        (field, _getter(_source(spelt), nulls), _source(spelt).blank == "null")
        for field, spelt in section.fields.items()
    ]

    def wanted(row: Row) -> bool:
        return all(holds(row) for holds in conditions)

    def build(row: Row) -> Fields:
        fact: Fields = {}
        for field, get, keep_null in getters:
            value = get(row)
            if value is not None or keep_null:
                place(fact, field, value)
        return fact

    return wanted, build


def _source(spelt: str | Source) -> Source:
    if isinstance(spelt, Source):
        return spelt
    return Source(template=spelt) if "{" in spelt else Source(column=spelt)


def _condition(condition: Condition, nulls: frozenset[str]) -> Callable[[Row], bool]:
    get = _column(condition.column, nulls)

    def holds(row: Row) -> bool:
        value = get(row)
        return (
            (condition.present is None or condition.present == (value is not None))
            and (condition.among is None or (value is not None and _text(value) in condition.among))
            and (condition.not_in is None or value is None or _text(value) not in condition.not_in)
        )

    return holds


def _getter(source: Source, nulls: frozenset[str]) -> Getter:
    """The steps of a source, put together; steps it does not ask for cost nothing."""
    get = _origin(source, nulls)
    if (read := _reader(source)) is not None:
        get = _when_present(get, read)
    if source.values is not None:
        get = _when_present(get, _translation(source.values, source))
    if source.default is not None:
        get = _defaulted(get, _json_value(source.default))
    return get


def _origin(source: Source, nulls: frozenset[str]) -> Getter:
    if source.column is not None:
        return _column(source.column, nulls)
    if source.template is not None:
        return _template(source.template, nulls)
    constant = _json_value(source.constant)
    return lambda row: constant


def _column(name: str, nulls: frozenset[str]) -> Getter:
    def get(row: Row) -> Any:
        value = look_up(row, name)
        return None if isinstance(value, str) and value in nulls else value

    return get


def _template(template: str, nulls: frozenset[str]) -> Getter:
    """The text with its columns filled in; absent when one of them is."""
    parts = [(text, None if name is None else _column(name, nulls)) for text, name, _, _ in Formatter().parse(template)]

    def get(row: Row) -> str | None:
        filled = []
        for text, column in parts:
            filled.append(text)
            if column is not None:
                value = column(row)
                if value is None:
                    return None
                filled.append(_text(value))
        return "".join(filled)

    return get


def _when_present(get: Getter, change: Callable[[Any], Any]) -> Getter:
    def changed(row: Row) -> Any:
        value = get(row)
        return None if value is None else change(value)

    return changed


def _defaulted(get: Getter, default: Any) -> Getter:
    def filled(row: Row) -> Any:
        value = get(row)
        return default if value is None else value

    return filled


def _reader(source: Source) -> Callable[[Any], Any] | None:
    where = source.column or source.template or "constant"
    if source.time is not None:
        return _instant_reader(source.time, ZoneInfo(source.zone), where)
    if source.json:
        return lambda value: _from_json(value, where)
    if source.split is not None:
        separator = source.split
        return lambda value: [part.strip() for part in _text(value).split(separator) if part.strip()]
    return None


def _instant_reader(style: str, zone: ZoneInfo, where: str) -> Callable[[Any], str]:
    """Reads a time into ISO 8601, UTC; of an hour that a zone has twice, the first is meant."""
    parse = _PARSERS.get(style) or (lambda text: datetime.strptime(text, style))  # noqa: DTZ007 - the zone follows
    expected = f"a time as {style}"

    def read(value: Any) -> str:
        try:
            moment = parse(_text(value))
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
            return times.to_text(times.to_micros(aware))
        except (ValueError, ArithmeticError):
            raise BadInput(where, expected, value) from None

    return read


def _epoch(micros_per_unit: int) -> Callable[[str], datetime]:
    """Reads a decimal number of units since 1970; what is finer than a microsecond is cut."""
    return lambda text: times.to_datetime(int(Decimal(text) * micros_per_unit))


_PARSERS: dict[str, Callable[[str], datetime]] = {
    "iso": datetime.fromisoformat,
    "epoch_seconds": _epoch(times.SECOND),
    "epoch_millis": _epoch(times.SECOND // 1000),
}


def _translation(values: Mapping[str, Any], source: Source) -> Callable[[Any], Any]:
    table = {key: _json_value(value) for key, value in values.items()}
    where = source.column or source.template or "constant"

    def translate(value: Any) -> Any:
        text = _text(value)
        if text in table:
            return table[text]
        if source.others == "refuse":
            raise BadInput(where, f"one of {', '.join(sorted(table))}", value)
        return value if source.others == "keep" else None

    return translate


def _from_json(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        raise BadInput(where, "JSON", value) from None


def _text(value: Any) -> str:
    """The value as a cell would show it: `true`, `12`, `a`."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _json_value(value: Any) -> Any:
    """A TOML value as JSON has it: its dates and times become ISO text."""
    return value.isoformat() if isinstance(value, (datetime, date, time)) else value


def _columns(section: Section) -> set[str]:
    names = {condition.column for condition in section.where}
    for spelt in section.fields.values():
        source = _source(spelt)
        names |= {source.column} if source.column is not None else set()
        names |= set(_template_columns(source.template or ""))
    return names


def _template_columns(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def _check(section: Section, where: str) -> None:
    """BadInput when a section cannot mean anything."""
    if not section.fields:
        raise BadInput(f"{where}.fields", "at least one field", "none")
    for field, spelt in section.fields.items():
        if any(other.startswith(f"{field}.") for other in section.fields):
            raise BadInput(f"{where}.fields.{field}", "no field within it, since it is a value itself", field)
        _check_source(_source(spelt), f"{where}.fields.{field}")


def _check_source(source: Source, where: str) -> None:
    origins = [source.column, source.template, source.constant]
    if sum(origin is not None for origin in origins) != 1:
        raise BadInput(where, "one of column, template or constant", origins)
    if sum((source.time is not None, source.json, source.split is not None)) > 1:
        raise BadInput(where, "only one of time, json or split", source)
    if source.time is not None and source.time not in _PARSERS and "%" not in source.time:
        raise BadInput(f"{where}.time", f"a strptime format, or one of {', '.join(_PARSERS)}", source.time)
    if source.split == "":
        raise BadInput(where, "a separator in split", source.split)
    _check_zone(source.zone, where)
    _check_template(source.template or "", where)


def _check_zone(zone: str, where: str) -> None:
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, KeyError):
        raise BadInput(f"{where}.zone", "an IANA time zone such as Europe/Berlin", zone) from None


def _check_template(template: str, where: str) -> None:
    try:
        named = all(name != "" for name in _template_columns(template))
    except ValueError as error:
        raise BadInput(where, "a template such as order-{order_id}", str(error)) from None
    if not named:
        raise BadInput(where, "a column's name between { and }", template)
