"""`touchline report …`: the reports of streams.reports, printed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from models.attribution import BUILT_IN, MARKOV
from models.conversions import DIMENSIONS
from models.errors import BadInput
from streams import earned, pipeline_commands, reports
from streams.commands import Group, Option, filtered, in_order, in_periods, in_style, on_tables
from streams.committee_commands import account, person
from streams.journeys import Document
from streams.printing import Row, Style, money, show, titled
from streams.warmth_commands import alerts, warmth

NO_VALUE = "(none)"
USUAL_MODELS = "first_touch,last_touch,linear,u_shaped,w_shaped,time_decay"
_MODELS = f"{', '.join((*BUILT_IN, MARKOV))}, and those of the settings (`touchline models`)."
_CONVERSIONS = "lead, opportunity, won, open (the open deals), stage:NAME of a configured stage."


@click.group(cls=Group)
def report() -> None:
    """Ask the totals.

    JSON and CSV give amounts in minor units and counts of credits in millionths.
    """


report.add_command(account)
report.add_command(person)
report.add_command(warmth)
report.add_command(alerts)


def _by(**options: Any) -> Option:
    return click.option("--by", metavar="DIMENSION", help=", ".join(DIMENSIONS), **options)


_asks = in_order(
    click.option("--conversion", default="won", show_default=True, help=_CONVERSIONS),
    in_periods(earned.GRAINS),
    filtered,
    in_style,
)
"""The options that say which credits are added up."""


@report.command()
@click.option("--model", required=True, help=_MODELS)
@_by(required=True)
@_asks
def credits(model: str, by: str, style: Style, **asked: Any) -> None:
    """Which channels, campaigns, teams … earned what, under one model."""
    rows = on_tables(lambda redis, settings: reports.credits(redis, settings, model=model, by=by, **asked))
    columns = ("period", by, "count", "amount", "currency")
    show(rows, style, columns, millionths=True, missing=NO_VALUE)


@report.command()
@click.option("--models", required=True, metavar="A,B,…", help=_MODELS)
@click.option("--settings", "versions", metavar="live,NAME", help="Under two versions of the settings.")
@_by(required=True)
@_asks
def compare(models: str, versions: str | None, by: str, style: Style, **asked: Any) -> None:
    """What channels, campaigns … earned under several models side by side, or two versions of the settings."""
    names = [name.strip() for name in models.split(",") if name.strip()]
    if versions:
        _compare_versions(versions, names, by, style, asked)
        return
    rows = on_tables(lambda redis, settings: reports.compare(redis, settings, models=names, by=by, **asked))
    numbers = [f"{name}.{each}" for name in names for each in ("count", "amount")]
    show(rows, style, ("period", by, *numbers, "currency"), millionths=True, missing=NO_VALUE)


def _compare_versions(versions: str, models: list[str], by: str, style: Style, asked: dict[str, Any]) -> None:
    from streams import side_by_side

    names = [name.strip() for name in versions.split(",") if name.strip()]
    document = on_tables(
        lambda redis, settings: side_by_side.compare(redis, settings, names=names, models=models, by=by, **asked)
    )
    if style == "table":
        click.echo(_affected(document))
    show(document["rows"], style, ("period", by), document=document, millionths=True, missing=NO_VALUE)


def _affected(document: Document) -> str:
    old, new = document["settings"]
    affected = document["affected"]
    words = (
        "not counted"
        if affected is None
        else f"{affected['touches']:,} touches, {affected['conversions']:,} conversions"
    )
    warning = "" if document["same_facts"] else f"; {new} has read {document['progress']:.1%} of the facts so far"
    return f"old: {old}, new: {new}; affected: {words}{warning}"


@report.command()
@_by(default="team", show_default=True)
@_asks
def sourced(by: str, style: Style, **asked: Any) -> None:
    """What each team, rep, campaign or channel sourced (had the first touch of) and influenced (had any)."""
    rows = on_tables(lambda redis, settings: reports.sourced(redis, settings, by=by, **asked))
    numbers = [f"{each}.{number}" for each in ("sourced", "influenced") for number in ("count", "amount")]
    show(rows, style, ("period", by, *numbers, "currency"), millionths=True, missing=NO_VALUE)


@report.command()
@click.argument("id")
@click.option("--models", default=USUAL_MODELS, show_default=True, help="The models that a table shows, or all.")
@in_style
def deal(id: str, models: str, style: Style) -> None:
    """A deal: its touches and what they earned under each model; a table shows a few of them."""
    document = on_tables(lambda redis, settings: reports.deal(redis, settings, id))
    if style == "table":
        _print_deal(document, _shown(models, document["models"]))
    else:
        show(list(deal_rows(document)), style, ("conversion", "conversion_at"), document=document)


def deal_rows(document: Document) -> Iterator[Row]:
    """One flat row for each touch of each conversion, and one for what no touch earned."""
    for conversion in document["conversions"]:
        of = {"conversion": conversion["kind"], "conversion_at": conversion["at"]}
        for touch in conversion["touches"]:
            credits = _every_model(touch["credits"], document["models"]) | {MARKOV: _effect(touch["credits"])}
            yield {**of, **touch, "credits": credits, "currency": conversion["currency"]}
        if conversion["unattributed"]:
            credits = _every_model(conversion["unattributed"], document["models"])
            credits[MARKOV] = _effect({})
            yield {**of, "kind": "unattributed", "credits": credits, "currency": conversion["currency"]}


def _every_model(credits: Document, models: Iterable[str]) -> Document:
    return {model: credits.get(model, {"count": 0, "amount": 0}) for model in models}


def _effect(credits: Document) -> Document:
    effect: Document = credits.get(MARKOV, {"effect": None})
    return effect


def _shown(asked: str, known: Sequence[str]) -> list[str]:
    """The models of a table, in the order asked for."""
    names = [*known, MARKOV] if asked == "all" else [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in (*known, MARKOV):
            raise BadInput("models", f"all, or some of {', '.join((*known, MARKOV))}", name)
    return names


def _print_deal(document: Document, models: Sequence[str]) -> None:
    found = document["deal"]
    worth = "no amount" if found["amount"] is None else _worth(found["amount"], found["currency"])
    click.echo(f"{found['id']}: {found['name'] or NO_VALUE}, {found['state']}, {found['stage'] or 'no stage'}, {worth}")
    account = titled(found["account"], found["account_name"]) if found["account"] else "not known yet"
    click.echo(f"account {account}, owner {found['owner'] or NO_VALUE}")
    for conversion in document["conversions"]:
        waits = f", waits for {conversion['waits_for']}" if "waits_for" in conversion else ""
        worth = "" if waits else f", {_worth(conversion['amount'], conversion['currency'])}"
        click.echo(f"\n{conversion['kind']} at {conversion['at']}{worth}{waits}")
        if not waits:
            show(list(_touch_lines(conversion, models)), "table")


def _worth(amount: int, currency: str) -> str:
    return f"{money(amount, currency)} {currency}"


def _touch_lines(conversion: Document, models: Sequence[str]) -> Iterator[Row]:
    """A line for each touch: when, who, what, and its share under each model."""
    for touch in conversion["touches"]:
        source = " / ".join(each for each in (touch["channel"], touch["source"], touch["campaign"]) if each)
        who = {"at": touch["at"], "person": touch["person"], "kind": touch["kind"], "from": source}
        yield {**who, "stage": touch["funnel_stage"], **_shares(touch["credits"], conversion, models)}
    if conversion["unattributed"]:
        none = {"at": "", "person": "", "kind": "unattributed", "from": "", "stage": ""}
        yield {**none, **_shares(conversion["unattributed"], conversion, models)}


def _shares(credits: Document, conversion: Document, models: Sequence[str]) -> dict[str, str]:
    """Each model's amount; its part of the conversion when that is worth nothing; markov's removal effect."""
    return {name: _share(credits.get(name, {}), conversion, name) for name in models}


def _share(credit: Document, conversion: Document, model: str) -> str:
    if model == MARKOV:
        effect = credit.get("effect")
        return "" if effect is None else f"{effect:.4f}"
    if conversion["amount"]:
        return money(credit.get("amount", 0), conversion["currency"])
    return f"{credit.get('count', 0) / 10_000:.2f} %"


@report.command()
@click.argument("account")
@in_style
def journey(account: str, style: Style) -> None:
    """An account's touches, people and deals."""
    document = on_tables(lambda redis, settings: reports.journey(redis, settings, account))
    if style == "table":
        _print_journey(document)
    else:
        show(document["touches"], style, ("at", "id", "person", "kind"), document=document)


def _print_journey(document: Document) -> None:
    if document["merged_from"]:
        click.echo(f"{document['merged_from']} was merged into {document['account']}.")
    click.echo(f"{titled(document['account'], document['name'])}: {len(document['touches'])} touches")
    for title, rows, names in (
        ("people", document["people"], ("person", "role", "lead_at")),
        ("deals", document["deals"], ("id", "name", "state", "stage", "amount", "currency", "created_at")),
        ("touches", document["touches"], _TOUCH_COLUMNS),
    ):
        if rows:
            click.echo(f"\n{title}")
            show([{name: row.get(name) for name in names} for row in rows], "table")


_TOUCH_COLUMNS = (
    "at",
    "person",
    "role",
    "kind",
    "team",
    "channel",
    "source",
    "campaign",
    "landing_page",
    "rep",
    "pages",
    "seconds",
)


@report.command()
@in_style
def attributes(style: Style) -> None:
    """The attributes that --where can ask for, with the number of accounts of each value."""
    show(on_tables(reports.attributes), style, ("attribute", "value", "accounts"))


@report.command()
@in_style
def shared(style: Style) -> None:
    """Visitors of too many people, user ids of too many e-mails: their links have lapsed."""
    show(on_tables(reports.shared), style, ("kind", "id", "names"))


@report.command()
@in_style
def usage(style: Style) -> None:
    """How often the product was used, by day and event."""
    show(on_tables(reports.usage), style, ("day", "event", "count"))


@report.command()
@in_style
def waiting(style: Style) -> None:
    """What is not in the totals yet, and what it waits for."""
    show(on_tables(reports.waiting), style, ("kind", "deal", "refund", "reason"))


@report.command("dead-letters")
@click.option("--limit", default=20, show_default=True, help="At most so many.")
@in_style
def dead_letters(limit: int, style: Style) -> None:
    """What was refused lately, and why; JSON and CSV have the originals."""
    from streams import refusals  # Kafka's client is slow to import

    letters = on_tables(lambda redis, settings: refusals.dead_letters(redis, settings, limit=limit))
    rows = map(_letter_line, letters) if style == "table" else letters
    show(list(rows), style, ("at", "topic", "partition", "offset"))


def _letter_line(letter: Row) -> Row:
    """A letter on one line: which record it was, and what did not fit."""
    record = f"{letter['topic']}:{letter['partition']}:{letter['offset']}"
    return {"at": letter["at"], "record": record, **{name: letter[name] for name in ("where", "expected", "got")}}


@report.command()
@click.option("--partitions", is_flag=True, help="A row for each partition.")
@in_style
def lanes(partitions: bool, style: Style) -> None:
    """How far the lanes are, what lags, and how fast they go."""
    rows = on_tables(lambda redis, settings: reports.lanes(redis, settings, partitions))
    if not any(row["workers"] for row in rows):
        click.echo("No worker is running.", err=True)
    if any(row["lag"] is None for row in rows):
        click.echo("Kafka does not answer: how much there is to read is not known.", err=True)
    if style == "table":
        rows = [{name: value for name, value in row.items() if name != "topics"} for row in rows]
    show(rows, style, missing="?")


for _command in (
    pipeline_commands.pipeline,
    pipeline_commands.forecast,
    pipeline_commands.velocity,
    pipeline_commands.funnel,
):
    report.add_command(_command)
