"""The HTTP door: what a Segment client posts becomes facts in Kafka.

    POST /v1/page|screen|track|identify|group|alias (or their first letter)   one message
    POST /v1/batch|b|import, /beacon/v1/batch                                  a batch of them
    POST /v1/m                                     the clients' own metrics: dropped, no key
    GET  /v1/projects/KEY/settings, /sourceConfig/ what browser clients ask before they send

200 `{"success":true}`: Kafka has acknowledged everything. 400 no JSON object, 401 write key,
404 path, 413 too long, 429 (with Retry-After) Kafka is away or too slow. Errors are
JSON with `code` and `message`. A message of a batch that is no valid fact goes to the dead
letters, the others count. A bare ASGI function: Starlette would cost half as much again.
"""

import base64
import logging
import random
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from models.decoding import decode
from models.errors import BadInput, NotFound, TouchlineError, Unavailable
from models.facts import key_of
from models.settings import Settings
from models.times import to_text
from streams.answers import TooLarge, Unauthorized, problem, status_of
from streams.intake import Intake, Record
from streams.metrics import Metrics
from streams.reference import is_bot
from streams.segment import CALLS, Arrival, complete, facts_in, pack, parse_body, split, write_key_of

Headers = list[tuple[bytes, bytes]]
Clock = Callable[[], int]

PREFIXES = ("/v1/", "/beacon/v1/", "/sourceConfig")
"""Every path that this door answers starts with one of these."""

log = logging.getLogger(__name__)

_MOST_READING_BYTES = 64 * 1024 * 1024
_RETRY_SECONDS = (1, 5)
_GZIP = b"\x1f\x8b"
_METRICS_PATH = "/v1/m"
_SOURCE_CONFIG = b'{"source":{"id":"s","enabled":true,"config":{},"destinations":[]}}'


class Disconnected(Exception):
    """The client went away before its body was complete."""


class Answer(NamedTuple):
    """A status with its body, always JSON, and the headers beside content type and length."""

    status: int
    body: bytes
    headers: Headers


_CORS: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"retry-after")]
_JSON_HEADERS: Headers = [(b"content-type", b"application/json"), *_CORS]
_DESCRIPTION_HEADERS: Headers = [*_JSON_HEADERS, (b"cache-control", b"private, max-age=300")]
_CLIENT_HEADERS = (
    b"authorization, content-type, x-retry-count, anonymousid, sentat, rsa-recovered, rsa-retry-attempt, "
    b"rsa-retry-reason, rsa-since-first-attempt, rsa-since-last-attempt"
)
_PREFLIGHT = Answer(
    204,
    b"",
    [
        *_CORS,
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", _CLIENT_HEADERS),
        (b"access-control-max-age", b"86400"),
    ],
)
_SUCCESS = Answer(200, b'{"success":true}', _JSON_HEADERS)
_SUCCESS_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [*_JSON_HEADERS, (b"content-length", b"16")],
}
_SUCCESS_BODY = {"type": "http.response.body", "body": _SUCCESS.body}


def now() -> int:
    """Microseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1000


class Collector:
    """The door, with what it needs: where facts go, which keys are ours, what time it is."""

    def __init__(self, settings: Settings, intake: Intake, metrics: Metrics, clock: Clock = now) -> None:
        self._settings = settings
        self._intake = intake
        self._metrics = metrics
        self._clock = clock
        self._write_keys = frozenset(settings.web.write_keys)
        self._secret_keys = frozenset(settings.web.secret_keys)
        self._reading_bytes = 0

    def follow(self, settings: Settings) -> None:
        """Go on under other rules."""
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"].rstrip("/")
        try:
            answer = await self._answer(path, scope, receive)
        except Disconnected:
            return
        except TouchlineError as error:
            answer = _refusal(error)
        except Exception:
            log.exception("a request to %s failed", scope["path"])
            answer = Answer(500, problem(500, "this is a bug of ours"), _JSON_HEADERS)
        self._metrics.count_request(path if path in CALLS else "collector", answer.status)
        if answer is _SUCCESS:
            await send(_SUCCESS_START)
            await send(_SUCCESS_BODY)
        else:
            await _send(send, answer)

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        method = scope["method"]
        if method == "POST" and path in CALLS:
            await self._collect(CALLS[path], scope, receive)
            return _SUCCESS
        if method == "POST" and path == _METRICS_PATH:
            return _SUCCESS
        if method == "OPTIONS":
            return _PREFLIGHT
        if method == "GET" and path in CALLS:
            raise NotFound(f"{path} takes POST")
        if method == "GET":
            return Answer(200, self._description(path, scope), _DESCRIPTION_HEADERS)
        raise NotFound(f"nothing takes {method} {scope['path']}")

    async def _collect(self, kind: str | None, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        key = _key_in_head(headers, scope["query_string"])
        if key:
            self._check(key)
        body = await self._read(headers, receive)
        envelope = parse_body(body)
        if not key:
            key = write_key_of(envelope)
            self._check(key)
        arrival = Arrival(self._clock(), kind, envelope, key in self._secret_keys)
        records = self._records(body, arrival)
        started = time.perf_counter()
        await self._intake.publish(records)
        self._metrics.observe_produce_seconds(time.perf_counter() - started)
        for record in records:
            self._metrics.count_message(record.topic)

    def _check(self, key: str) -> None:
        if key not in self._write_keys and key not in self._secret_keys:
            raise Unauthorized("a write key of this server is needed: Basic, ?writeKey= or in the body")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The body, inflated; TooLarge beyond the limit, Unavailable when too many are being read."""
        limit = self._settings.web.max_body_bytes
        if int(headers.get(b"content-length", b"0")) > limit:
            raise TooLarge(f"at most {limit} bytes are taken")
        parts: list[bytes] = []
        length = 0
        try:
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Disconnected
                part = event.get("body", b"")
                length += len(part)
                self._reading_bytes += len(part)
                if length > limit:
                    raise TooLarge(f"at most {limit} bytes are taken")
                if self._reading_bytes > _MOST_READING_BYTES:
                    raise Unavailable("too many bodies are being read")
                parts.append(part)
                if not event.get("more_body", False):
                    return inflate(b"".join(parts), limit)
        finally:
            self._reading_bytes -= length

    def _records(self, body: bytes, arrival: Arrival) -> list[Record]:
        originals = split(body, arrival.envelope, arrival.kind)
        return [record for original in originals for record in self._records_of(original, arrival)]

    def _records_of(self, original: bytes, arrival: Arrival) -> list[Record]:
        """The facts in a message; a dead letter when it is none; nothing when no topic takes it."""
        try:
            facts = facts_in(complete(original, arrival, is_bot), self._settings)
            if not facts:
                self._metrics.count_message("unused")
            return [self._record(topic, pack(message), arrival) for topic, message in facts]
        except BadInput as error:
            return [Record("dead-letters", None, dead_letter(original, error, arrival.received_at))]

    def _record(self, topic: str, value: bytes, arrival: Arrival) -> Record:
        fact = decode(topic, value, arrival.received_at, self._settings)
        return Record(topic, key_of(topic, fact).encode(), value)

    def _description(self, path: str, scope: Scope) -> bytes:
        """What a browser client asks for before it sends its first event."""
        headers = dict(scope["headers"])
        if path == "/sourceConfig":
            self._check(_key_in_head(headers, scope["query_string"]))
            return _SOURCE_CONFIG
        key = path.removeprefix("/v1/projects/").removesuffix("/settings")
        if path != f"/v1/projects/{key}/settings" or key not in self._write_keys:
            raise NotFound(f"nothing is at {path}")
        host = headers.get(b"host", b"").decode("latin-1")
        destination = {"apiKey": key, "apiHost": f"{host}/v1", "protocol": scope["scheme"]}
        return msgspec.json.encode({"integrations": {"Segment.io": destination}})


def inflate(body: bytes, limit: int) -> bytes:
    """The body without gzip, which its first bytes tell: clients' headers do not.

    Raises TooLarge beyond `limit` bytes, BadInput when the gzip stream is broken.
    """
    if not body.startswith(_GZIP):
        return body
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadInput("body", "a gzip stream", str(error)) from None
    if len(inflated) > limit:
        raise TooLarge(f"at most {limit} bytes are taken, inflated")
    if not inflater.eof:
        raise BadInput("body", "a whole gzip stream", f"{len(body)} bytes that break off")
    return inflated


def dead_letter(original: bytes, error: BadInput, received_at: int) -> bytes:
    """A message that was refused, as the lanes' dead letters are (streams.dead_letters)."""
    letter = {
        "id": f"collector:{uuid4()}",
        "topic": None,
        "partition": None,
        "offset": None,
        "recordedAt": to_text(received_at),
        "lane": "collector",
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
        "original": original.decode(),
    }
    return msgspec.json.encode(letter)


def _key_in_head(headers: dict[bytes, bytes], query: bytes) -> str:
    """The write key from Basic authorization, else from the query, else ""."""
    if b"authorization" in headers:
        return _basic_user(headers[b"authorization"])
    if b"writeKey" in query:
        return parse_qs(query.decode("latin-1")).get("writeKey", [""])[0]
    return ""


@lru_cache(maxsize=1024)
def _basic_user(authorization: bytes) -> str:
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        user, _, _ = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("the Basic authorization cannot be read") from None
    return user


def _refusal(error: TouchlineError) -> Answer:
    """The error as clients obey it: all of them honour Retry-After on 429, few on 503."""
    status = 429 if isinstance(error, Unavailable) else status_of(error)
    headers = [*_JSON_HEADERS]
    if status == 429:
        headers.append((b"retry-after", str(random.randint(*_RETRY_SECONDS)).encode()))
    return Answer(status, problem(status, error), headers)


async def _send(send: Send, answer: Answer) -> None:
    headers = answer.headers
    if answer.status != 204:
        headers = [*headers, (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
