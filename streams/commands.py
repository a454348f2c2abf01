"""What commands share: how to print rows, a connection to the tables, a progress bar."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from models.filters import Where, parse_where
from models.settings import Settings
from streams.printing import STYLES

T = TypeVar("T")
Command = Callable[..., None]
Option = Callable[[Command], Command]

in_style = click.option(
    "--format", "style", type=click.Choice(STYLES), default="table", show_default=True, help="How to print rows."
)


def _conditions(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Where:
    return parse_where(given)


filtered = click.option(
    "--where",
    "where",
    multiple=True,
    metavar="ATTRIBUTE=A,B",
    callback=_conditions,
    help="Only accounts with one of these values, (none) for no value; several conditions all hold.",
)


class Group(click.Group):
    """A group whose commands are listed with their whole first sentence, wrapped where it is long."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in commands if each])


def in_order(*options: Option) -> Option:
    """All of these options as one, listed in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def within(default: float | None = None) -> Option:
    """The option of how long to wait."""
    help = "Wait no longer than so many seconds."
    return click.option("--timeout", type=click.FloatRange(0), default=default, show_default=True, help=help)


def in_periods(grains: Iterable[str]) -> Option:
    """The options of which days are asked for, and by which of these grains."""
    return in_order(
        click.option("--grain", default="total", show_default=True, help=", ".join(grains)),
        click.option("--from", "since", metavar="DAY", help="First day, such as 2026-04-01."),
        click.option("--to", "until", metavar="DAY", help="Last day, included."),
    )


def on_tables(work: Callable[[Any, Settings], Awaitable[T]], *, as_configured: bool = False) -> T:
    """The result of `work(redis, settings)` under the rules of the live tables, or `as_configured` in the file."""
    from streams import config, versions
    from streams.answers import translated

    quiet_clients()

    async def connected() -> T:
        settings = config.load()
        with translated():
            async with config.redis_client(settings) as redis:
                return await work(redis, settings if as_configured else await versions.in_force(redis, settings))

    return asyncio.run(connected())


def quiet_clients() -> None:
    """Kafka's client logs every retry; what matters of it we raise as an error of ours."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that is told (done, total); silent when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
