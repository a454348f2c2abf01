"""A mapping file says which facts a row of somebody else's table means."""

from pathlib import Path
from typing import Any

import pytest

from models.errors import BadInput
from models.facts import FACT_TOPICS
from streams.mapping import RowMap, place, plain_map, read_map

MAPS = sorted((Path(__file__).parent / "maps").glob("*.toml"))


def mapped(fields: str, row: dict[str, Any], head: str = "") -> dict[str, Any]:
    """The one fact of a row by a map with these lines under [fact.fields]."""
    (fact,) = read_map(f"{head}\n[[fact]]\n[fact.fields]\n{fields}", "touches").facts(row)
    return fact


def refusal(text: str, topic: str = "touches") -> str:
    with pytest.raises(BadInput) as refused:
        read_map(text, topic, "my.toml")
    return str(refused.value)


def test_a_field_comes_from_a_column_a_template_or_a_constant() -> None:
    fields = 'person = "email"\ntouchId = "call-{id}"\nkind = { constant = "call" }'

    fact = mapped(fields, {"email": "ada@example.com", "id": "7"})

    assert fact == {"person": "ada@example.com", "touchId": "call-7", "kind": "call"}


def test_a_dotted_field_makes_the_objects_on_its_way() -> None:
    fields = '"context.campaign.source" = "utm"\n"context.page.url" = "url"'

    fact = mapped(fields, {"utm": "google", "url": "https://a.example"})

    assert fact == {"context": {"campaign": {"source": "google"}, "page": {"url": "https://a.example"}}}


def test_empty_and_null_literals_are_absent_and_a_template_with_one_is_absent_too() -> None:
    fields = 'source = "utm"\ncontent = "utm_content"\ncampaign = "{utm}-{year}"\nkind = "kind"'

    fact = mapped(fields, {"utm": "NULL", "utm_content": "", "year": "2026", "kind": "call"}, 'nulls = ["", "NULL"]')

    assert fact == {"kind": "call"}


def test_an_absent_value_takes_its_default_or_clears_the_field() -> None:
    fields = (
        'rep = { column = "rep", default = "nobody" }\n'
        'account = { column = "account", blank = "null" }\n'
        'team = { column = "team", blank = "absent" }'
    )

    fact = mapped(fields, {"rep": "", "account": "", "team": ""})

    assert fact == {"rep": "nobody", "account": None}


def test_values_are_translated_and_others_are_kept_dropped_or_refused() -> None:
    translation = 'values = { Won = "closed_won" }'
    fields = f'kept = {{ column = "stage", {translation} }}\n'
    fields += f'dropped = {{ column = "stage", {translation}, others = "absent" }}'

    assert mapped(fields, {"stage": "Won"}) == {"kept": "closed_won", "dropped": "closed_won"}
    assert mapped(fields, {"stage": "Lost"}) == {"kept": "Lost"}
    with pytest.raises(BadInput, match="stage: expected one of Won, got Lost"):
        mapped(f'stage = {{ column = "stage", {translation}, others = "refuse" }}', {"stage": "Lost"})


@pytest.mark.parametrize(
    ("source", "cell", "instant"),
    [
        ('time = "%d/%m/%Y %H:%M"', "03/04/2026 12:30", "2026-04-03T12:30:00Z"),
        ('time = "%Y-%m-%d", zone = "America/New_York"', "2026-07-01", "2026-07-01T04:00:00Z"),
        ('time = "iso", zone = "Europe/Berlin"', "2026-01-01 00:30:00", "2025-12-31T23:30:00Z"),
        ('time = "iso", zone = "Europe/Berlin"', "2026-01-01T00:30:00+00:00", "2026-01-01T00:30:00Z"),
        ('time = "iso", zone = "Europe/Berlin"', "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        ('time = "epoch_seconds"', "1767225600", "2026-01-01T00:00:00Z"),
        ('time = "epoch_seconds"', "1767225600.123456789", "2026-01-01T00:00:00.123456Z"),
        ('time = "epoch_millis"', 1767225600123, "2026-01-01T00:00:00.123000Z"),
    ],
)
def test_times_of_many_forms_become_utc_instants(source: str, cell: object, instant: str) -> None:
    fact = mapped(f'timestamp = {{ column = "at", {source} }}', {"at": cell})

    assert fact == {"timestamp": instant}


@pytest.mark.parametrize("cell", ["yesterday", "2026-13-01", "", "1e400", "nan", "9" * 40])
@pytest.mark.parametrize("style", ["%Y-%m-%d", "iso", "epoch_seconds"])
def test_what_is_no_time_is_refused_and_what_is_absent_is_not(style: str, cell: str) -> None:
    fields = f'kind = {{ constant = "call" }}\ntimestamp = {{ column = "at", time = "{style}" }}'

    if cell == "":
        assert mapped(fields, {"at": cell}) == {"kind": "call"}
    else:
        with pytest.raises(BadInput, match=f"at: expected a time as {style}"):
            mapped(fields, {"at": cell})


def test_a_cell_may_hold_a_list_or_json() -> None:
    fields = 'contacts = { column = "people", split = ";" }\ndomains = { column = "json", json = true }'

    fact = mapped(fields, {"people": "a@x.example; b@x.example;", "json": '["x.example"]'})

    assert fact == {"contacts": ["a@x.example", "b@x.example"], "domains": ["x.example"]}


def test_a_row_yields_each_fact_whose_conditions_hold() -> None:
    text = """
        [[fact]]
        fields = { dealId = "id", stage = { constant = "open" } }
        [[fact]]
        where = [{ column = "closed", present = true }, { column = "kind", in = ["new", "renewal"] }]
        fields = { dealId = "id", stage = { constant = "closed_won" } }
        [[fact]]
        where = [{ column = "closed", present = false }, { column = "kind", not_in = ["trial"] }]
        fields = { dealId = "id", stage = { constant = "waiting" } }
    """
    row_map = read_map(text, "deal-changes")

    stages = [
        [fact["stage"] for fact in row_map.facts({"id": "1", "closed": closed, "kind": kind})]
        for closed, kind in (("2026-01-01", "new"), ("2026-01-01", "other"), ("", "new"), ("", "trial"))
    ]

    assert stages == [["open", "closed_won"], ["open"], ["open", "waiting"], ["open"]]


def test_rows_of_json_are_read_by_dotted_columns_and_keep_their_types() -> None:
    fields = 'amount = "deal.amount"\nname = "deal.{stage}"\nowner = "a.b"\ntouchId = "call-{deal.amount}"'

    fact = mapped(fields, {"deal": {"amount": 12.5}, "a.b": True, "stage": "won"})

    assert fact == {"amount": 12.5, "owner": True, "name": "deal.won", "touchId": "call-12.5"}


def test_a_load_takes_the_sections_of_its_topic_only() -> None:
    text = """
        [[fact]]
        topic = "touches"
        fields = { touchId = "id" }
        [[fact]]
        topic = "deal-changes"
        fields = { dealId = "id" }
    """

    assert read_map(text, "deal-changes").facts({"id": "1"}) == [{"dealId": "1"}]
    assert "a [[fact]] for the topic billing" in refusal(text, "billing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fact = ", "my.toml: expected a TOML file"),
        ("", "my.toml: fact: expected a value, got nothing"),
        ("facts = []", "my.toml"),
        ("[[fact]]\nfields = {}", "my.toml: fact 1.fields: expected at least one field"),
        ("[[fact]]\nfields = { a = 1 }", "my.toml: fact[0].fields"),
        ("[[fact]]\nfields = { a = { colum = 'b' } }", "colum"),
        ("[[fact]]\nfields = { a = {} }", "my.toml: fact 1.fields.a: expected one of column, template or constant"),
        ("[[fact]]\nfields = { a = { column = 'b', constant = 'c' } }", "one of column, template or constant"),
        ("[[fact]]\nfields = { a = { column = 'b', time = 'iso', json = true } }", "only one of time, json or split"),
        ("[[fact]]\nfields = { a = { column = 'b', zone = 'Mars/Olympus' } }", "an IANA time zone"),
        ("[[fact]]\nfields = { a = 'x-{y' }", "a template such as order-{order_id}"),
        ("[[fact]]\nfields = { a = 'x-{}' }", "a column's name between { and }"),
        ("[[fact]]\nfields = { a = 'b', 'a.c' = 'd' }", "my.toml: fact 1.fields.a: expected no field within it"),
        ("[[fact]]\nfields = { a = { column = 'b', time = 'ISO' } }", "fields.a.time: expected a strptime format"),
    ],
)
def test_a_wrong_map_is_refused_with_the_place(text: str, words: str) -> None:
    assert words in refusal(text)


def test_without_a_map_a_csv_column_is_a_field_of_its_name() -> None:
    fact_of = plain_map(["dealId", "context.page.url", "amount", "contacts", "deleted", "account", "name"])
    row = {
        "dealId": "7",
        "context.page.url": "https://a.example",
        "amount": "12.50",
        "contacts": '["a@x.example"]',
        "deleted": "true",
        "account": "null",
        "name": "",
    }

    assert fact_of(row) == {
        "dealId": "7",
        "context": {"page": {"url": "https://a.example"}},
        "amount": "12.50",
        "contacts": ["a@x.example"],
        "deleted": True,
        "account": None,
    }


def test_a_field_cannot_be_put_into_a_value() -> None:
    fact: dict[str, Any] = {"context": "text"}

    with pytest.raises(BadInput, match="context.page: expected an object at context"):
        place(fact, "context.page", "x")


@pytest.mark.parametrize("file", MAPS, ids=lambda path: path.stem)
def test_the_maps_of_the_public_data_sets_name_a_topic_that_takes_facts(file: Path) -> None:
    text = file.read_text()

    takes = [topic for topic in FACT_TOPICS if _reads(text, topic)]

    assert len(takes) == 1


def _reads(text: str, topic: str) -> RowMap | None:
    try:
        return read_map(text, topic)
    except BadInput:
        return None
