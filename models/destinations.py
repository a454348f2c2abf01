"""Where alerts can go: named receivers, each with what it needs to be reached.

A receiver at a private or local address is refused unless `allow_private` says otherwise, so
that a setting cannot be made to reach into the network that Touchline runs in.
"""

import base64
import binascii
from collections.abc import Mapping
from email.utils import parseaddr
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from models.errors import BadInput

SECRET_PREFIX = "whsec_"
SECRET_BYTES = (16, 64)
"""Shortest and longest signing key. Source: Standard Webhooks, which advises 24 to 64."""


class Webhook(Struct, frozen=True, forbid_unknown_fields=True, tag="webhook", tag_field="kind"):
    """An HTTP endpoint that gets each alert as JSON, signed (Standard Webhooks) with every secret that is valid."""

    url: str
    secrets: tuple[str, ...] = ()
    allow_private: bool = False


class Slack(Struct, frozen=True, forbid_unknown_fields=True, tag="slack", tag_field="kind"):
    """A Slack incoming webhook; its address is a secret."""

    url: str
    allow_private: bool = False


class Email(Struct, frozen=True, forbid_unknown_fields=True, tag="email", tag_field="kind", rename={"sender": "from"}):
    """People, through a mail server."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""
    allow_private: bool = False


class Alertmanager(Struct, frozen=True, forbid_unknown_fields=True, tag="alertmanager", tag_field="kind"):
    """A Prometheus Alertmanager (API v2), which is told again each minute what fires."""

    url: str
    allow_private: bool = False


Destination = Webhook | Slack | Email | Alertmanager


def kind_of(destination: Destination) -> str:
    """The kind as it stands in the settings."""
    return str(destination.__struct_config__.tag)


def check_destinations(destinations: Mapping[str, Destination]) -> None:
    """BadInput names the first destination that cannot work."""
    for name, destination in destinations.items():
        where = f"destinations.{name}"
        if not name or not name.isprintable() or ":" in name:
            raise BadInput(where, "a printable name without colon", name)
        if isinstance(destination, Email):
            _check_mail(where, destination)
        else:
            _check_url(f"{where}.url", destination.url)
        if isinstance(destination, Webhook):
            _check_secrets(f"{where}.secrets", destination.secrets)


def signing_key(secret: str) -> bytes:
    """The bytes of a secret, which is base64 with or without `whsec_`; ValueError when it is none."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        works = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        works = False
    if not works:
        raise BadInput(where, "an address such as https://example.com/hook", "another")


def _check_secrets(where: str, secrets: tuple[str, ...]) -> None:
    """A secret that is wrong is never quoted."""
    least, most = SECRET_BYTES
    if not secrets:
        raise BadInput(where, f"at least one secret, {SECRET_PREFIX} and {least} to {most} bytes in base64", "none")
    for place, secret in enumerate(secrets):
        try:
            length = len(signing_key(secret))
        except (binascii.Error, ValueError):
            length = 0
        if not least <= length <= most:
            expected = f"{SECRET_PREFIX} and {least} to {most} bytes in base64"
            raise BadInput(f"{where}[{place}]", expected, f"{length} bytes" if length else "no base64")


def _check_mail(where: str, mail: Email) -> None:
    if not mail.host:
        raise BadInput(f"{where}.host", "the name of a mail server", mail.host)
    if not 0 < mail.port < 65536:
        raise BadInput(f"{where}.port", "a port from 1 to 65535", mail.port)
    if not mail.to:
        raise BadInput(f"{where}.to", "at least one address", "none")
    for field, addresses in (("from", (mail.sender,)), ("to", mail.to)):
        for address in addresses:
            if "@" not in parseaddr(address)[1] or any(each in address for each in "\r\n"):
                raise BadInput(f"{where}.{field}", "an e-mail address", address)
    if mail.user and mail.tls == "none" and not mail.allow_private:
        raise BadInput(f"{where}.tls", "starttls or tls, since a password is sent", mail.tls)
