"""`touchline`: every command, and the one place where errors become words and exit codes.

0 done; 1 not so (audit differs, wait gave up); 2 wrong input or settings; 3 not found; 4 Kafka or Redis away.
What a command needs is imported when it runs, so that `touchline --help` is quick.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from models.errors import BadInput, NotFound, TouchlineError, Unavailable
from streams.printing import STYLES, Row, Style, show

T = TypeVar("T")

EXIT_CODES: dict[type[TouchlineError], int] = {TouchlineError: 1, BadInput: 2, NotFound: 3, Unavailable: 4}
WAIT_SECONDS = 300.0
_ELSEWHERE = {"load": ("streams.load:load_command", "Load facts into a topic.")}


class Commands(click.Group):
    """The commands; those defined elsewhere are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which they are defined."""
        return [*self.commands, *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported where it is defined."""
        if cmd_name in _ELSEWHERE:
            module, _, name = _ELSEWHERE[cmd_name][0].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        here = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*here, *((name, words) for name, (_, words) in _ELSEWHERE.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one line and an exit code."""
        try:
            return super().invoke(ctx)
        except TouchlineError as error:
            click.echo(f"touchline: {' '.join(str(error).split())}", err=True)
            ctx.exit(exit_code(error))


def exit_code(error: TouchlineError) -> int:
    """The exit code of the error's class, or of the nearest class above it."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="touchline")
def main() -> None:
    """Live B2B revenue attribution whose books always balance.

    Kafka and Redis are those of TOUCHLINE_KAFKA and TOUCHLINE_REDIS, else of a `touchline dev`
    that runs in this folder, else of touchline.toml (or the file that TOUCHLINE_CONFIG names).
    """


in_style = click.option(
    "--format", "style", type=click.Choice(STYLES), default="table", show_default=True, help="How to print rows."
)


def on_tables(work: Callable[[Any, Any], Awaitable[T]]) -> T:
    """Run `work(redis, settings)` with the settings in force."""
    from streams import config
    from streams.answers import translated

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of it is told as our error

    async def connected() -> T:
        settings = config.load()
        async with config.redis_client(settings) as redis:
            with translated():
                return await work(redis, settings)

    return asyncio.run(connected())


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


# --- roles ------------------------------------------------------------------------------


@main.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path(".touchline"), show_default=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when all is up.")
def dev(data: Path, as_json: bool) -> None:
    """Run everything on this machine: Kafka, Redis, a worker, the web."""
    from streams import dev as role

    role.run(data, as_json=as_json)


@main.command()
def worker() -> None:
    """Run a worker: the three lanes."""
    from streams import app, config

    sys.argv[1:] = []  # Faust reads them too
    app.run_worker(config.load())


@main.command()
def web() -> None:
    """Run the web: collector, reports, live page."""
    from streams import config
    from streams import web as role

    role.main(config.load())


# --- set-up -----------------------------------------------------------------------------


@main.command()
@click.option("--create", is_flag=True, help="Make those that are missing first.")
@in_style
def topics(create: bool, style: Style) -> None:
    """List the topics, and what is in them."""
    import msgspec

    from streams import config
    from streams import topics as kafka

    async def listed() -> list[Any]:
        settings = config.load()
        if create:
            await kafka.create_topics(settings)
        return await kafka.list_topics(settings)

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    show([msgspec.structs.asdict(row) for row in asyncio.run(listed())], style)


@main.command()
@in_style
def settings(style: Style) -> None:
    """Print the settings in force, without secrets."""
    from streams import config
    from streams.secrets import shown

    document = shown(config.load())
    if style == "json":
        show([], style, document=document)
        return
    import json

    from streams.printing import flattened

    rows = [{"setting": name, "value": json.dumps(value)} for name, value in _settings_of(document)]
    show(rows, style) if style == "csv" else [print(f"{row['setting']} = {row['value']}") for row in rows]
