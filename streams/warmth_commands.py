"""`touchline report warmth` and `report alerts`, printed."""

from collections.abc import Iterator
from typing import Any

import click

from models.course import STATES
from models.filters import Where
from streams import reports
from streams.commands import filtered, in_style, on_tables
from streams.journeys import Document
from streams.printing import Row, Style, show, titled
from streams.warmth import MOST

MOST_REASONS = 5
"""So many causes are shown on a line; JSON has all."""
_LIMIT = click.option("--limit", default=MOST, show_default=True, help="At most so many (of each state).")


@click.command()
@click.argument("account", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only accounts in this state.")
@_LIMIT
@filtered
@in_style
def warmth(account: str | None, state: str | None, limit: int, where: Where, style: Style) -> None:
    """The warmest accounts of each state; or how one ACCOUNT came to be as warm as it is."""
    if account is not None:
        _show_history(account, style)
        return
    document = on_tables(lambda redis, settings: reports.warmth(redis, settings, state=state, limit=limit, where=where))
    if style == "table":
        click.echo(", ".join(f"{count:,} {name}" for name, count in document["counts"].items()))
        show([_line(row) for row in document["accounts"]], style)
    else:
        show(document["accounts"], style, ("account", "name", "state", "score", "since"), document=document)


def _line(row: Row) -> dict[str, Any]:
    """An account on one line."""
    following = f"{row['next_state']} on {_day(row['next_at'])}" if row["next_at"] else ""
    again = " again" if row["rewarmed"] else ""
    return {
        "account": row["account"],
        "name": row["name"],
        "state": f"{row['state']}{again}",
        "score": f"{row['score']:.2f}",
        "since": row["since"] or "",
        "because of": _words(row["cause"]) if row["cause"] else "",
        "next": following,
    }


def _words(cause: Document) -> str:
    """A touch in short: what, through what, by whom."""
    through = " ".join(each for each in (cause["channel"], cause["campaign"]) if each)
    what = f"{cause['kind']} ({through})" if through else cause["kind"]
    return f"{what} by {cause['person']}" if cause["person"] else what


def _day(at: str) -> str:
    return at[:10]


def _show_history(account: str, style: Style) -> None:
    document = on_tables(lambda redis, settings: reports.warmth_of(redis, settings, account))
    lines = [_transition(each) for each in document["history"]]
    if style == "table":
        _print_state(document)
    show(lines, style, ("at", "transition", "from", "to"), document=document)


def _print_state(document: Document) -> None:
    since = f" since {document['since']}" if document["since"] else ""
    quiet = ", quiet" if document["quiet"] else ""
    who = titled(document["account"], document["name"])
    click.echo(f"{who}: {document['state']}{since}, score {document['score']:.2f}{quiet}")
    if document["next"]:
        click.echo(f"{document['next']['state']} at {document['next']['at']} when nothing else happens")


def _transition(alert: Document) -> dict[str, Any]:
    """A transition, or its alert, on one line."""
    again = " again" if alert["rewarmed"] else ""
    return {
        "at": alert["at"],
        "transition": f"{alert['transition']}{again}",
        "from": alert["from"],
        "to": alert["to"],
        "score": f"{alert['score']['before']:.2f} → {alert['score']['after']:.2f}",
        "because of": "; ".join(reasons(alert)),
    }


def reasons(alert: Document) -> Iterator[str]:
    """What lifted the account, and what had cooled it; or what let it go cold."""
    for cause in alert["causes"][:MOST_REASONS]:
        share = f" {cause['share']:.0%}" if cause["share"] is not None else ""
        yield f"{_words(cause)}{share}"
    for touch in alert["lastTouches"][:1]:
        yield f"last touch {_words(touch)} on {_day(touch['at'])}"
    if alert["cooled"] and alert["cooled"]["lastTouches"]:
        last = alert["cooled"]["lastTouches"][0]
        yield f"had cooled on {_day(alert['cooled']['at'])} after {_words(last)}"
    if alert["lastTouches"]:
        yield from (
            f"deal {deal['dealId']} in {deal['stage']} for {deal['daysInStage']} days" for deal in alert["deals"]
        )


@click.command()
@_LIMIT
@filtered
@in_style
def alerts(limit: int, where: Where, style: Style) -> None:
    """The newest alerts."""
    found = on_tables(lambda redis, settings: reports.alerts(redis, settings, where=where, limit=limit))
    rows = [_alert_line(each, style) for each in found]
    show(rows, style, ("account", "name", "at", "transition"), document=found)


def _alert_line(alert: Document, style: Style) -> dict[str, Any]:
    """An alert on one line; what a table has no room for is left out of it."""
    line = {"account": alert["account"]["id"], "name": alert["account"]["name"], **_transition(alert)}
    if style == "table":
        return {name: value for name, value in line.items() if name not in ("from", "to")}
    return {**line, "id": alert["alertId"]}
