"""`touchline report account` and `report person`, printed."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from models.catalogue import kept_models
from models.settings import Settings
from streams import reports
from streams.asked import one_of
from streams.commands import in_style, on_tables
from streams.journeys import Document
from streams.printing import Row, Style, money, show, titled

_MODEL = click.option("--model", default="linear", show_default=True, help="Whose credits a table shows.")


@click.command()
@click.argument("id")
@_MODEL
@in_style
def account(id: str, model: str, style: Style) -> None:
    """An account: who they are, their people, who touched whom, deals and success."""
    document = _document(reports.account, id, model)
    if style == "table":
        _print_account(document, model)
    else:
        show(document["people"], style, ("person", "lead_at"), document=document)


@click.command()
@click.argument("id")
@_MODEL
@in_style
def person(id: str, model: str, style: Style) -> None:
    """A person: their ids and visitors, their touches and what these earned."""
    document = _document(reports.person, id, model)
    if style == "table":
        _print_person(document, model)
    else:
        show(document["touches"], style, ("at", "id", "kind"), document=document)


def _document(report: Callable[..., Awaitable[Document]], id: str, model: str) -> Document:
    """What the report says; BadInput when no credit is kept under the model."""

    async def asked(redis: Any, settings: Settings) -> Document:
        one_of("model", kept_models(settings), model)
        return await report(redis, settings, id)

    return on_tables(asked)


def _print_account(document: Document, model: str) -> None:
    if document["asked"] != document["account"]:
        click.echo(f"{document['asked']} was merged into {document['account']}.")
    click.echo(titled(document["account"], document["name"]))
    _say(
        owner=document["owner"],
        parent=document["parent"] and _called(document["parent"]),
        children=[_called(child) for child in document["children"]],
        attributes=[f"{name} {value}" for name, value in document["attributes"].items()],
        domains=document["domains"],
        customers=document["customers"],
        quiet="yes" if document["quiet"] else "",
        **{"merged from": document["merged_from"]},
    )
    _say_success(document["success"])
    people = [{**each, **_won(each["credits"], model, document["success"]["currency"])} for each in document["people"]]
    _print_rows("people", people, ("person", "role", "lead_at", "touches", "first_touch", "last_touch", f"won {model}"))
    counts = document["touches"]
    for name in ("kinds", "teams", "channels"):
        _say(**{f"touches by {name.removesuffix('s')}": [f"{value} {count}" for value, count in counts[name].items()]})
    _print_rows("who touched whom", document["contacts"], ("team", "rep", "person", "touches", "first", "last"))
    names = ("id", "name", "state", "stage", "amount", "currency", "created_at", "won_at")
    _print_rows("deals", document["deals"], names)


def _print_person(document: Document, model: str) -> None:
    if document["asked"] != document["person"]:
        click.echo(f"{document['asked']} is {document['person']}.")
    click.echo(document["person"])
    _say(
        account=document["account"] and titled(document["account"], document["account_name"]),
        known=f"since {document['lead_at']}",
        role=document["role"],
        ids=document["ids"],
        visitors=document["visitors"],
    )
    earned = [
        {"conversion": kind, **credits[model]} for kind, credits in document["credits"].items() if model in credits
    ]
    if earned:
        click.echo(f"\nearned ({model})")
        show([{**row, "currency": document["currency"]} for row in earned], "table", millionths=True)
    names = ("at", "kind", "team", "channel", "source", "campaign", "landing_page", "rep")
    _print_rows("touches", document["touches"], names)


def _say(**words: str | Sequence[str] | None) -> None:
    """A line for each that has anything to say."""
    for name, said in words.items():
        text = said if isinstance(said, str) else ", ".join(said or ())
        if text:
            click.echo(f"{name.replace('_', ' ')}: {text}")


def _called(found: Document) -> str:
    return titled(found["account"], found["name"])


def _say_success(success: Document) -> None:
    currency = success["currency"]
    won, still_open = success["won"], success["open"]
    _say(
        won=f"{won['deals']} deals, {money(won['amount'], currency)} {currency}" if won["deals"] else "",
        open=f"{still_open['deals']} deals, {money(still_open['amount'], currency)} {currency}"
        if still_open["deals"]
        else "",
        sourced=_amounts(success["sourced"], currency),
        influenced=_amounts(success["influenced"], currency),
    )


def _amounts(by_team: Mapping[str, int], currency: str) -> list[str]:
    return [f"{team} {money(amount, currency)} {currency}" for team, amount in by_team.items() if amount]


def _won(credits: Document, model: str, currency: str) -> dict[str, str]:
    amount: Any = credits.get("won", {}).get(model, {}).get("amount", 0)
    return {f"won {model}": money(amount, currency)}


def _print_rows(title: str, rows: Iterable[Row], names: Sequence[str]) -> None:
    shown = [{name: row.get(name) for name in names} for row in rows]
    if shown:
        click.echo(f"\n{title}")
        show(shown, "table")
