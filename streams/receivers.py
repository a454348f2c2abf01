"""How a message reaches a destination: one attempt, within its time, and what came of it.

webhook        POST the alert as it stands in `alerts`, signed (Standard Webhooks)
slack          POST {"text"}
alertmanager   POST /api/v2/alerts
email          SMTP

Redirects are never followed, and a receiver at an address that is not public is refused where
the socket is made, so that no name can be bent there later.
"""

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, NamedTuple

import aiohttp
import aiosmtplib
import orjson
from standardwebhooks import Webhook as Signer

from models.alert_texts import Mail, digest_mail, firing_after, mail, posted, slack_text
from models.alerts import decode_alert
from models.destinations import Alertmanager, Destination, Email, Slack, Webhook
from models.dispatch import Answer, Firing, Item, Standing, parse_retry_after
from models.times import SECOND, to_datetime

JSON = "application/json"
_AGENT = "Touchline"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Sent(NamedTuple):
    """What a destination answered, and what fires there if it was delivered."""

    answer: Answer
    firing: tuple[Firing, ...] = ()


class Refused(OSError):
    """The receiver's address is not public, and its destination does not allow that."""


class Receivers:
    """The way out, over one pool of connections for public addresses and one for any."""

    def __init__(self, attempt_seconds: float, link: str) -> None:
        self._attempt_seconds = attempt_seconds
        self._link = link
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, destination: Destination, standing: Standing, items: Sequence[Item], now: int) -> Sent:
        """Try once to send items as one message (without any: what fires); never raises but when cancelled."""
        try:
            async with asyncio.timeout(self._attempt_seconds):
                return await self._send(destination, standing, items, now)
        except TimeoutError:
            return Sent(Answer(False, error=f"no answer within {self._attempt_seconds:g} s"))
        except aiosmtplib.SMTPResponseException as error:
            return Sent(Answer(False, error.code, _words(error)))
        except (aiohttp.ClientError, aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            return Sent(Answer(False, error=_words(error)))
        except Exception as error:  # one message that cannot be made must not stop the others
            return Sent(Answer(False, error=f"not sent: {error!r}"))

    async def _send(self, destination: Destination, standing: Standing, items: Sequence[Item], now: int) -> Sent:
        match destination:
            case Webhook():
                return Sent(await self._send_webhook(destination, items[0], now))
            case Slack():
                text = slack_text([decode_alert(item.alert) for item in items], self._link)
                return Sent(await self._post(destination, destination.url, orjson.dumps({"text": text}), {}, now))
            case Alertmanager():
                return await self._send_alertmanager(destination, standing, items, now)
            case Email():
                return Sent(await self._send_mail(destination, self._mail(standing, items), now))

    # --- HTTP ---------------------------------------------------------------------------

    async def _send_webhook(self, destination: Webhook, item: Item, now: int) -> Answer:
        at, body = to_datetime(now), item.alert.decode()
        signatures = [Signer(secret).sign(item.alert_id, at, body) for secret in destination.secrets]
        headers = {
            "webhook-id": item.alert_id,
            "webhook-timestamp": str(now // SECOND),
            "webhook-signature": " ".join(signatures),
        }
        return await self._post(destination, destination.url, item.alert, headers, now)

    async def _send_alertmanager(
        self, destination: Alertmanager, standing: Standing, items: Sequence[Item], now: int
    ) -> Sent:
        url = destination.url.rstrip("/") + "/api/v2/alerts"
        before = standing.firing
        after, ended_at = before, ""
        if items:
            alert = decode_alert(items[0].alert)
            after, ended_at = firing_after(before, alert, self._link, matched=items[0].matched), alert.at
        body = posted(before, after, ended_at, now)
        if not body:
            return Sent(Answer(True), after)
        answer = await self._post(destination, url, orjson.dumps(body), {}, now)
        return Sent(answer, tuple(each for each in after if not _is_test(each)))

    async def _post(
        self, destination: Webhook | Slack | Alertmanager, url: str, body: bytes, headers: Mapping[str, str], now: int
    ) -> Answer:
        session = self._session(allow_private=destination.allow_private)
        sent = {"content-type": JSON, "user-agent": _AGENT, **headers}
        async with session.post(url, data=body, headers=sent, allow_redirects=False) as response:
            status = response.status
            if 200 <= status < 300:
                return Answer(True, status)
            retry_after = parse_retry_after(response.headers.get("retry-after"), now)
            return Answer(False, status, f"HTTP {status}", retry_after)

    def _session(self, *, allow_private: bool) -> aiohttp.ClientSession:
        """The pool, made when it is first needed; each destination bounds how many connections it takes."""
        if allow_private not in self._sessions:
            make = None if allow_private else _public_socket
            self._sessions[allow_private] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=make),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._sessions[allow_private]

    # --- mail ---------------------------------------------------------------------------

    def _mail(self, standing: Standing, items: Sequence[Item]) -> Mail:
        alerts = [decode_alert(item.alert) for item in items]
        head = items[0]
        if not head.digest:
            return mail(alerts, self._link)
        part = standing.part if standing.digest == head.digest else 0
        return digest_mail(alerts, self._link, head.route or "", head.digest, part)

    async def _send_mail(self, destination: Email, words: Mail, now: int) -> Answer:
        message = _message(destination, words, now)
        connected = await _connected(destination.host, destination.port, allow_private=destination.allow_private)
        smtp = aiosmtplib.SMTP(
            hostname=destination.host,
            sock=connected,
            timeout=self._attempt_seconds,
            use_tls=destination.tls == "tls",
            start_tls=destination.tls == "starttls",
            username=destination.user or None,
            password=destination.password or None,
            local_hostname=_domain(destination.sender),
        )
        async with smtp:
            refused, _ = await smtp.send_message(message, recipients=[parseaddr(to)[1] for to in destination.to])
        return Answer(True, 250, f"refused by {', '.join(refused)}" if refused else None)


def _message(destination: Email, words: Mail, now: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = destination.sender
    message["To"] = ", ".join(destination.to)
    message["Subject"] = words.subject
    message["Date"] = format_datetime(to_datetime(now))
    message["Message-ID"] = f"<{words.identity}@{_domain(destination.sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(words.text)
    return message


def _domain(address: str) -> str:
    return parseaddr(address)[1].rpartition("@")[2] or "touchline.invalid"


async def _connected(host: str, port: int, *, allow_private: bool) -> socket.socket:
    """A connection to the first of a host's addresses that takes one."""
    loop = asyncio.get_running_loop()
    failed: OSError = OSError(f"{host} has no address")
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            connection = _socket((family, kind, proto, "", address), allow_private=allow_private)
        except OSError as error:
            failed = error
            continue
        try:
            await loop.sock_connect(connection, address)
            return connection
        except OSError as error:
            failed = error
            connection.close()
        except BaseException:
            connection.close()
            raise
    raise failed


def _public_socket(address: Any) -> socket.socket:
    return _socket(address, allow_private=False)


def _socket(address: Any, *, allow_private: bool) -> socket.socket:
    """A socket for an address as `getaddrinfo` gives it; Refused when it may not be reached."""
    family, kind, proto, _, (host, *_) = address
    if not allow_private and not is_public(host):
        raise Refused(errno.EACCES, f"{host} is no public address; allow_private = true permits it")
    made = socket.socket(family=family, type=kind, proto=proto)
    made.setblocking(False)
    return made


def is_public(host: str) -> bool:
    """Is an IP address one of the internet's? Those that carry an IPv4 address are judged by it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        in_nat64 = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or in_nat64 or address
    return address.is_global and not address.is_multicast


def _is_test(firing: Firing) -> bool:
    return firing.labels["account"] == "touchline-test"


def _words(error: BaseException) -> str:
    """The error in a line, with what caused it where that alone says something."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
