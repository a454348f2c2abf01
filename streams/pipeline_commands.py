"""`touchline report pipeline`, `forecast`, `velocity` and `funnel`: streams.pipeline and streams.outlook, printed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from models.backtest import WARM_UP_MONTHS
from models.funnel import BY
from streams import outlook
from streams import pipeline as of_pipeline
from streams.commands import filtered, in_order, in_periods, in_style, on_tables
from streams.printing import Row, Style, show

NO_VALUE = "(none)"
_day = click.option(
    "--day", metavar="DAY", help="As it stood at the end of a past day, from the facts stamped by then."
)
_FORECAST = ("period", "pot", "pipeline", "new_business", "total", "p10", "p50", "p90", "currency")
_OPEN = ("count", "amount", "weighted_amount", "average_age_days", "oldest_age_days", "currency")
_VELOCITY = (
    "open", "won", "lost", "win_rate", "average_size", "cycle_median_days", "cycle_mean_days", "velocity_per_day",
    "currency",
)  # fmt: skip


_in_period = in_order(in_periods(of_pipeline.GRAINS), _day, filtered, in_style)


@click.command()
@click.option("--by", default="stage", show_default=True, help=", ".join(of_pipeline.OPEN_BY))
@click.option("--model", default="first_touch", show_default=True, help="Whose credits, by team, channel, source …")
@_day
@filtered
@in_style
def pipeline(by: str, style: Style, **asked: Any) -> None:
    """Open deals: how many, worth how much, how old."""
    rows = on_tables(lambda redis, settings: of_pipeline.pipeline(redis, settings, by=by, **asked))
    credited = by.strip().lower() in of_pipeline.CREDITED
    columns = [name for name in _OPEN if not (credited and name == "weighted_amount")]
    show(rows, style, (by, *columns), millionths=credited, missing=NO_VALUE)


@click.command()
@click.option("--grain", "--by", "grain", default="month", show_default=True, help="month, quarter or year")
@click.option("--periods", type=int, help="How many, the present one first.  [default: 12, 4 or 2]")
@click.option("--chances", is_flag=True, help="The probability counter instead: by stage and weeks there.")
@click.option("--lead-quality", is_flag=True, help="How well kinds of leads were won instead.")
@click.option("--backtest", is_flag=True, help="What was forecast of past months instead, and what came.")
@click.option("--ahead", default=1, show_default=True, help="Back-test: so many months ahead.")
@click.option("--from", "since", metavar="MONTH", help="Back-test: first month, such as 2026-04.")
@click.option("--to", "until", metavar="MONTH", help="Back-test: last month, included.")
@_day
@filtered
@in_style
def forecast(chances: bool, lead_quality: bool, backtest: bool, style: Style, **asked: Any) -> None:
    """What will be won: pot, pipeline and new business apart, and the range from P10 to P90."""
    if chances + lead_quality + backtest > 1:
        raise click.UsageError("--chances, --lead-quality and --backtest exclude each other")
    if chances:
        show(_told("--chances", outlook.chances, asked, "day", "where"), style)
    elif lead_quality:
        show(_told("--lead-quality", outlook.lead_quality, asked, "day", "where"), style)
    elif backtest:
        _show_backtest(_told("--backtest", outlook.backtest, asked, "ahead", "since", "until", "where"), style)
    else:
        _show_forecast(_told("a forecast", outlook.forecast, asked, "grain", "periods", "day", "where"), style)


def _told(what: str, report: Callable[..., Awaitable[Any]], asked: Row, *names: str) -> Any:
    """What the report says, asked with those of the options; UsageError when others ask for what it does not have."""
    for each in click.get_current_context().command.params:
        if each.name in asked.keys() - set(names) and asked[each.name] not in (each.default, None):
            raise click.UsageError(f"{each.opts[0]} does not go with {what}")
    return on_tables(lambda redis, settings: report(redis, settings, **{name: asked[name] for name in names}))


def _show_forecast(rows: Sequence[Row], style: Style) -> None:
    if style != "table":
        show(rows, style)
        return
    show([{name: row[name] for name in _FORECAST} for row in rows], style)
    first = rows[0]
    words = [f"at the end of {first['day']}", f"new business from {first['new_business_from']}"]
    if first["unpriced_deals"]:
        words.append(f"{first['unpriced_deals']:,} open deals without an amount count with the average size")
    if first["fixed_chances"]:
        words.append(f"the stages' own probabilities, for want of closed deals, in {', '.join(first['fixed_chances'])}")
    click.echo("\n" + "; ".join(words))


def _show_backtest(document: Row, style: Style) -> None:
    nothing = f"(nothing: a month is tried once it is over and {WARM_UP_MONTHS} months with wins lie before it)"
    show(document["months"], style, outlook.TRIAL_COLUMNS, document=document, nothing=nothing)
    if style == "table" and document["error"] is not None:
        click.echo(
            f"\n{document['months_ahead']} ahead: off by {document['error']:.1%} of what came (last month repeated "
            f"{document['last_month_error']:.1%}, open amount × win rate {document['open_times_rate_error']:.1%}); "
            f"{document['inside']:.1%} of the months lay between P10 and P90"
        )


@click.command()
@click.option("--by", default="total", show_default=True, help=", ".join(BY))
@_in_period
def velocity(by: str, style: Style, **asked: Any) -> None:
    """How fast deals are won: win rate, average size, cycle, and money a day."""
    rows = on_tables(lambda redis, settings: of_pipeline.velocity(redis, settings, by=by, **asked))
    show(rows, style, ("period", *([] if by == "total" else [by]), *_VELOCITY), missing="")


@click.command()
@click.option("--model", default="linear", show_default=True, help="Whose credits by funnel stage and channel.")
@click.option("--conversion", default="won", show_default=True, help="Which conversion's credits.")
@_in_period
def funnel(style: Style, **asked: Any) -> None:
    """Who brought deals how far, how they go through the stages, time to buy, and where accounts are."""
    document = on_tables(lambda redis, settings: of_pipeline.funnel(redis, settings, **asked))
    if style != "table":
        show(document["stages"], style, document=document)
        return
    for title, rows in document.items():
        if rows:
            click.echo(f"\n{title.replace('_', ' ')}")
            show(rows, "table", millionths=title == "credits")
