"""`touchline link …` and `touchline unlink …`: merge and part people and accounts by hand."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import click

from models.errors import TouchlineError
from models.settings import Settings
from streams import links
from streams.commands import Group, in_order, in_style, on_tables
from streams.links import Said
from streams.printing import Style, show
from streams.waiting import until_caught_up

WAIT_SECONDS = 300.0


@click.group(cls=Group)
def link() -> None:
    """Merge people or accounts, or attach a person to an account.

    Each command puts facts into their topics; nothing is written into tables. `unlink`
    takes it back: history moves as if the link had never been.
    """


@click.group(cls=Group)
def unlink() -> None:
    """Withdraw a link between people, of a person to an account, or between accounts."""


_does = in_order(
    click.option("--dry-run", is_flag=True, help="Produce nothing, only print the facts."),
    click.option("--wait", "waits", is_flag=True, help="Return once the totals are those after it."),
    in_style,
)
"""The options that every one of these commands has."""


@link.command("person")
@click.argument("id")
@click.argument("into")
@_does
def link_person(id: str, into: str, **options: Any) -> None:
    """The person id ID is the person INTO (an alias)."""
    _do(links.link_person, id, into, **options)


@link.command("contact")
@click.argument("person")
@click.argument("account")
@_does
def link_contact(person: str, account: str, **options: Any) -> None:
    """PERSON belongs to ACCOUNT (a contact-change of the source `touchline`)."""
    _do(links.link_contact, person, account, **options)


@link.command("account")
@click.argument("id")
@click.argument("into")
@_does
def link_account(id: str, into: str, **options: Any) -> None:
    """The account ID is merged into the account INTO (an account-change)."""
    _do(links.link_account, id, into, **options)


@unlink.command("person")
@click.argument("id")
@click.argument("other", required=False)
@_does
def unlink_person(id: str, other: str | None, **options: Any) -> None:
    """The person id ID is not OTHER (default: not anybody else); withdraws the messages that say so."""
    _do(links.unlink_person, id, other, **options)


@unlink.command("message")
@click.argument("id")
@click.option("--anonymous-id", "anonymousId", help="The message's anonymousId.")
@click.option("--user-id", "userId", help="Its userId.")
@click.option("--previous-id", "previousId", help="Its previousId.")
@click.option("--group-id", "groupId", help="Its groupId.")
@_does
def unlink_message(
    id: str,
    anonymousId: str | None,
    userId: str | None,
    previousId: str | None,
    groupId: str | None,
    **options: Any,
) -> None:
    """Withdraw the links of the message ID, which carried these ids."""
    ids = {"anonymousId": anonymousId, "userId": userId, "previousId": previousId, "groupId": groupId}

    async def said(redis: Any, settings: Settings) -> list[Said]:
        return links.unlink_message(id, ids)

    _do(said, **options)


@unlink.command("contact")
@click.argument("person")
@click.option("--source", help="Only what this source (such as salesforce) said.")
@_does
def unlink_contact(person: str, source: str | None, **options: Any) -> None:
    """PERSON does not belong to the account that contact-changes named."""
    _do(links.unlink_contact, person, source, **options)


@unlink.command("account")
@click.argument("id")
@_does
def unlink_account(id: str, **options: Any) -> None:
    """The account ID is not merged into another any more."""
    _do(links.unlink_account, id, **options)


def _do(
    decide: Callable[..., Awaitable[list[Said]]], *ids: str | None, dry_run: bool, waits: bool, style: Style
) -> None:
    """Decide which facts say it of these ids, produce them, tell what was done."""

    async def done(redis: Any, settings: Settings) -> list[Said]:
        said = await decide(redis, settings, *ids)
        if said and not dry_run:
            await links.produce(settings, said)
        return said

    _tell(on_tables(done), dry_run, style)
    if waits and not dry_run:
        _wait(style)


def _wait(style: Style) -> None:
    lag = on_tables(lambda redis, settings: until_caught_up(redis, settings, WAIT_SECONDS))
    if lag:
        raise TouchlineError(f"not in the totals after {WAIT_SECONDS:g} s: {lag}")
    click.echo("The totals are those after it.", err=style != "table")


def _tell(said: list[Said], dry_run: bool, style: Style) -> None:
    if style != "table":
        show([{"topic": each.topic, "fact": each.body, "says": each.words} for each in said], style)
        return
    if not said:
        click.echo("It is so already: nothing is to be done.")
    for each in said:
        click.echo(f"{each.words} ({each.topic} {each.body['messageId']})")
        if dry_run:
            click.echo(json.dumps(each.body, ensure_ascii=False))
