"""`touchline`: every command, and the one place where errors become words and exit codes.

0 done; 1 not so (the audit differs, the wait gave up); 2 wrong input or settings; 3 not
found; 4 Kafka or Redis away. What a command needs is imported when it runs, so that
`touchline --help` is quick.
"""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import click

from models.errors import BadInput, NotFound, TouchlineError, Unavailable
from streams.commands import Group, in_style, on_tables, progress_of, quiet_clients, within
from streams.printing import Style, show

EXIT_CODES: dict[type[TouchlineError], int] = {TouchlineError: 1, BadInput: 2, NotFound: 3, Unavailable: 4}
WAIT_SECONDS = 300.0


class Elsewhere(NamedTuple):
    """A command that is defined in another module."""

    module: str
    name: str
    words: str


_ELSEWHERE = {
    "link": Elsewhere("streams.link_commands", "link", "Merge people or accounts, attach a person to an account."),
    "unlink": Elsewhere("streams.link_commands", "unlink", "Withdraw a link."),
    "load": Elsewhere("streams.load", "load_command", "Load facts from files into a topic."),
    "alerts": Elsewhere("streams.alert_commands", "alerts", "Test destinations, see what waits, turn one on again."),
    "report": Elsewhere("streams.report_commands", "report", "Ask the totals."),
}
_ORDER = (
    "dev",
    "worker",
    "deliver",
    "web",
    "topics",
    "settings",
    "models",
    "load",
    "wait",
    "report",
    "link",
    "unlink",
    "alerts",
    "audit",
    "rebuild",
)


class Commands(click.Group):
    """The commands; those defined elsewhere are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one needs them."""
        return list(_ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported from where it is defined."""
        if found := _ELSEWHERE.get(cmd_name):
            command: click.Command = getattr(import_module(found.module), found.name)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        words = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        words.update((name, found.words) for name, found in _ELSEWHERE.items())
        with formatter.section("Commands"):
            formatter.write_dl([(name, words[name]) for name in _ORDER])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one line and an exit code."""
        try:
            return super().invoke(ctx)
        except TouchlineError as raised:
            error = _why_away(raised) if isinstance(raised, Unavailable) else raised
            click.echo(f"touchline: {' '.join(str(error).split())}", err=True)
            ctx.exit(exit_code(error))


def _why_away(error: TouchlineError) -> TouchlineError:
    """What keeps us out of Kafka or Redis, if anything does: clients tell little of it."""
    from streams import config, reaching

    try:
        asyncio.run(reaching.reach(config.load()))
    except TouchlineError as why:
        return why
    return error


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


# --- roles ------------------------------------------------------------------------------


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(".touchline"),
    show_default=True,
    help="Where it keeps data.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when all is up.")
def dev(data: Path, as_json: bool) -> None:
    """Run everything on this machine: Kafka, Redis, worker, web, deliver."""
    from streams import dev as role

    role.run(data, as_json=as_json)


@main.command()
def worker() -> None:
    """Run a worker: the three lanes."""
    from streams import app, config

    app.run_worker(config.load())


@main.command()
def deliver() -> None:
    """Deliver alerts: webhooks, Slack, mail, Alertmanager."""
    from streams import config
    from streams import deliver as role

    role.run(config.load())


@main.command()
def web() -> None:
    """Run the web: collector, reports, live page."""
    from streams import config
    from streams import web as role

    role.main(config.load())


# --- what is set up ---------------------------------------------------------------------


@main.command()
@click.option("--create", is_flag=True, help="First make those that are missing.")
@in_style
def topics(create: bool, style: Style) -> None:
    """List the topics and how much is in them."""
    import msgspec

    from streams import config
    from streams import topics as kafka

    async def listed() -> list[kafka.TopicRow]:
        settings = config.load()
        if create:
            await kafka.create_topics(settings)
        return await kafka.list_topics(settings)

    quiet_clients()
    show([msgspec.structs.asdict(row) for row in asyncio.run(listed())], style)


@main.command()
@in_style
def models(style: Style) -> None:
    """List the attribution models, those of the settings too."""
    from models.catalogue import described
    from streams import config

    show([each._asdict() for each in described(config.load())], style)


@main.group(cls=Group, invoke_without_command=True)
@in_style
@click.pass_context
def settings(ctx: click.Context, style: Style) -> None:
    """Print the settings, secrets masked; try others beside them.

    A change of the rules is tried beside the live ones: `preview` begins it, `versions`
    shows how far it is, `touchline report compare --settings live,NAME` what it changes,
    `take-over` makes it live.
    """
    if ctx.invoked_subcommand is None:
        _print_settings(style)


def _print_settings(style: Style) -> None:
    from streams import config
    from streams.printing import flattened

    document = masked(config.load())
    rows = [{"setting": name, "value": value} for name, value in flattened(document).items()]
    show(rows, style, document=document)


@settings.command()
@click.argument("name")
def preview(name: str) -> None:
    """Compute NAME beside the live version: the tables under the rules of the file as it is now."""
    from streams import previews

    begun = on_tables(lambda redis, settings: previews.begin(redis, settings, name), as_configured=True)
    for change in begun.changes:
        click.echo(f"{change.setting}: {_json_of(change.old)} → {_json_of(change.new)}")
    click.echo(f"{name} is being computed; `touchline settings versions` shows how far it is.")


@settings.command()
@in_style
def versions(style: Style) -> None:
    """List the live version and the previews, each with its progress."""
    import msgspec

    from streams import previews

    rows = [msgspec.to_builtins(row) for row in on_tables(previews.listed)]
    if style == "table":
        rows = [{**row, "changes": ", ".join(change["setting"] for change in row["changes"])} for row in rows]
    show(rows, style)


@settings.command("take-over")
@click.argument("name")
def take_over(name: str) -> None:
    """Make the preview NAME the live version; its progress must be 1."""
    from streams import previews

    def say(said: str) -> None:
        click.echo(said, err=True)

    on_tables(lambda redis, settings: previews.take_over(redis, settings, name, say))
    click.echo(f"{name} is live.")


@settings.command()
@click.argument("name")
def drop(name: str) -> None:
    """Give the preview NAME up and delete its tables."""
    from streams import previews

    on_tables(lambda redis, settings: previews.drop(redis, settings, name))
    click.echo(f"{name} is dropped.")


def _json_of(value: Any) -> str:
    from json import dumps

    return dumps(value, ensure_ascii=False)


def masked(settings: Any) -> dict[str, Any]:
    """The settings as JSON has them, without passwords."""
    import msgspec

    from streams.config import MASK, without_password

    document: dict[str, Any] = msgspec.to_builtins(settings)
    if document["kafka"]["sasl_password"]:
        document["kafka"]["sasl_password"] = MASK
    document["web"]["secret_keys"] = [MASK] * len(document["web"]["secret_keys"])
    document["redis"]["url"] = without_password(document["redis"]["url"])
    for destination in document["destinations"].values():
        _mask_destination(destination)
    return document


def _mask_destination(destination: dict[str, Any]) -> None:
    """Signing secrets, mail passwords, and the addresses that are secrets themselves."""
    from streams.config import MASK, without_password

    if "secrets" in destination:
        destination["secrets"] = [MASK] * len(destination["secrets"])
    if destination.get("password"):
        destination["password"] = MASK
    if "url" in destination:
        parts = urlsplit(without_password(destination["url"]))
        path = f"/{MASK}" if destination["kind"] == "slack" else parts.path
        query = urlencode([(name, MASK) for name, _ in parse_qsl(parts.query)], safe="*")
        destination["url"] = urlunsplit(parts._replace(path=path, query=query))


# --- the books --------------------------------------------------------------------------


@main.command()
@within(WAIT_SECONDS)
def wait(timeout: float) -> None:
    """Wait until everything produced so far is in the totals."""
    _wait_for_all("in the totals", timeout)


def _wait_for_all(what: str, seconds: float | None) -> None:
    from streams.waiting import until_caught_up

    with progress_of(what) as tell:
        lag = on_tables(lambda redis, settings: until_caught_up(redis, settings, seconds, tell), as_configured=True)
    if lag:
        raise TouchlineError(f"not everything is in the totals after {seconds:g} s: {lag}")


@main.command()
@in_style
def audit(style: Style) -> None:
    """Compare the totals with a batch over all facts in Kafka.

    Every total of every model and dimension, the pipeline, what waits and every deal's
    credits; each difference is printed, and the exit code is 1 if there is one. The lanes
    take no facts for the moment in which the totals are copied.
    """
    from streams.audit import audit as compare

    with progress_of("facts read again") as tell:
        done = on_tables(lambda redis, settings: compare(redis, settings, tell))
    show(
        done.rows(),
        style,
        ("what", "where", "model"),
        document=done.document(),
        nothing="",
    )
    click.echo(done.words(), err=style != "table")
    if not done.clean:
        raise SystemExit(1)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@within()
@click.option(
    "--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until all facts are counted again."
)
def rebuild(yes: bool, waits: bool, timeout: float | None) -> None:
    """Empty the tables and compute them anew from Kafka.

    Workers may go on running. Needed after a change of the rules in the settings; a rebuild
    that was interrupted is run again.
    """
    from streams import rebuild as tables

    if not yes:
        click.confirm("Empty all tables and compute them anew from Kafka?", abort=True)
    if not on_tables(tables.rebuild, as_configured=True):
        click.echo("The tables are empty. No worker is at work yet; `touchline wait` tells when all is counted.")
        return
    click.echo("The tables are empty; workers compute them anew.")
    if waits:
        _wait_for_all("counted again", timeout)
        click.echo("All facts are in the totals again.")


if __name__ == "__main__":
    main()
