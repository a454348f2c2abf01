"""Which messages a Segment client's request holds, when they happened, and where they go.

Pure: the moment of arrival is a parameter. Members that nothing here reads stay the bytes
that the client sent.
Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
"""

import re
from typing import NamedTuple, TypeAlias
from uuid import uuid4

import msgspec

from models.errors import BadInput
from models.facts import IsBot
from models.identity import person_id
from models.settings import Settings
from models.times import parse_instant, to_text

Message: TypeAlias = dict[str, msgspec.Raw]

CALLS: dict[str, str | None] = {
    **{f"/v1/{kind}": kind for kind in ("page", "screen", "track", "identify", "group", "alias")},
    **{f"/v1/{kind[0]}": kind for kind in ("page", "screen", "track", "identify", "group", "alias")},
    **dict.fromkeys(("/v1/batch", "/v1/b", "/v1/import", "/beacon/v1/batch"), None),
}
"""Path (without a slash at its end) → the type of the one message it takes, None for a batch."""

MOST_MESSAGES = 10_000
"""More messages in one request are refused; no client sends above 2,500."""

_TOPICS = {
    "page": "page-views",
    "screen": "page-views",
    "identify": "identities",
    "alias": "identities",
    "group": "identities",
    "unlink": "identities",
    "bot": "identities",
}
_OPERATORS_OWN = ("unlink", "bot")
_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")
_ABSENT = (b"", b"null", b'""')


class _Context(msgspec.Struct):
    userAgent: str | None = None
    groupId: str | int | None = None


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()
_context = msgspec.json.Decoder(_Context)
_encode = msgspec.json.Encoder().encode


class Arrival(NamedTuple):
    """What all messages of one request have in common; `is_secret` is its key, which no website shows."""

    received_at: int
    kind: str | None
    envelope: Message
    is_secret: bool = False


def parse_body(body: bytes) -> Message:
    """The members of the request's JSON object; BadInput when it is none."""
    try:
        return _members(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput("body", f"a JSON object ({error})", _excerpt(body)) from None


def split(body: bytes, envelope: Message, kind: str | None) -> list[bytes]:
    """The messages of a request, as they came: the body itself, or (kind None) those of its batch."""
    if kind is not None:
        return [body]
    if "batch" not in envelope:
        raise BadInput("batch", "an array of messages", "nothing")
    try:
        messages = _array.decode(envelope["batch"])
    except msgspec.DecodeError:
        raise BadInput("batch", "an array of messages", _excerpt(bytes(envelope["batch"]))) from None
    if len(messages) > MOST_MESSAGES:
        raise BadInput("batch", f"at most {MOST_MESSAGES} messages", len(messages))
    return [bytes(message) for message in messages]


def write_key_of(envelope: Message) -> str:
    """The `writeKey` in the body, "" without one."""
    return _text(envelope, "writeKey") or ""


def complete(original: bytes, arrival: Arrival, is_bot: IsBot) -> Message:
    """The message with type, id and times filled in, its clock corrected and its user agent judged.

    Raises BadInput when it is no object, a time in it is none, or its key must not send it.
    """
    try:
        message = _members(original)
    except msgspec.DecodeError:
        raise BadInput("message", "a JSON object", _excerpt(original)) from None
    if arrival.kind is not None:
        message.pop("writeKey", None)
        message["type"] = _raw(arrival.kind)
    else:
        _inherit(message, arrival.envelope)
    if _is_absent(message, "messageId"):
        message["messageId"] = _raw(str(uuid4()))
    _correct_clock(message, arrival.received_at)
    if _text(message, "type") not in _OPERATORS_OWN:
        _judge(message, is_bot)
    elif not arrival.is_secret:
        raise BadInput("type", "a type that a write key may send (this one needs a secret key)", _text(message, "type"))
    return message


def _judge(message: Message, is_bot: IsBot) -> None:
    """Note as `bot` what the list says today of the user agent; a newer one does not look back."""
    try:
        agent = None if _is_absent(message, "context") else _context.decode(message["context"]).userAgent
    except msgspec.DecodeError as error:
        raise BadInput(
            "context", f"an object as Segment describes it ({error})", _excerpt(bytes(message["context"]))
        ) from None
    if agent:
        message["bot"] = _TRUE if is_bot(agent) else _FALSE
    else:
        message.pop("bot", None)


def facts_in(message: Message, settings: Settings) -> list[tuple[str, Message]]:
    """The facts that a completed message is, each with its topic; none when no topic takes it.

    A track call that is no form fill is product usage of the user that it names, and
    identifies a visitor that it names too. Raises BadInput when the type is unknown.
    """
    kind = _text(message, "type")
    if kind == "track":
        if _text(message, "event") in settings.form_events:
            return [("form-fills", message)]
        both = not (_is_absent(message, "anonymousId") or _is_absent(message, "userId"))
        usage = _usage_in(message, settings)
        return [("identities", message)] * both + [("product-usage", usage)] * bool(usage)
    if kind not in _TOPICS:
        expected = "one of track, " + ", ".join(_TOPICS)
        raise BadInput("type", expected, _excerpt(bytes(message.get("type", b"nothing"))))
    return [(_TOPICS[kind], message)]


def _usage_in(message: Message, settings: Settings) -> Message:
    """The call as product usage; empty when it names nobody or nothing, or is a bot's."""
    absent = _is_absent(message, "event") or _is_absent(message, "userId")
    if absent or message.get("bot") == _TRUE or person_id(_any.decode(message["userId"]), settings) is None:
        return {}
    usage = {name: message[name] for name in ("messageId", "timestamp", "receivedAt", "event")}
    usage["person"] = message["userId"]
    account = None if _is_absent(message, "context") else _context.decode(message["context"]).groupId
    return usage if account is None else {**usage, "account": _raw(account)}


def pack(message: Message) -> bytes:
    """The message as JSON."""
    return _encode(message)


def _members(body: bytes) -> Message:
    try:
        body.decode()
        return _object.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = _mend_surrogates(body)
        if mended == body:
            raise
        return _object.decode(mended)


# Either a whole pair, or (group 2) half of one: what remains of an emoji that a script cut in two.
_SURROGATES = re.compile(
    rb"((?<!\\)(?:\\\\)*)(?:\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def _mend_surrogates(body: bytes) -> bytes:
    return _SURROGATES.sub(lambda found: found[1] + rb"\ufffd" if found[2] else found[0], body)


def _inherit(message: Message, envelope: Message) -> None:
    """Take over what the batch says for all of its messages; the message's own members win."""
    if _is_absent(message, "sentAt") and not _is_absent(envelope, "sentAt"):
        message["sentAt"] = envelope["sentAt"]
    if not _is_absent(envelope, "context"):
        common, own = _object_in(envelope, "context"), _object_in(message, "context")
        message["context"] = msgspec.Raw(_encode(common | own))


def _object_in(message: Message, name: str) -> Message:
    if _is_absent(message, name):
        return {}
    try:
        return _object.decode(message[name])
    except msgspec.ValidationError:
        raise BadInput(name, "an object", _excerpt(bytes(message[name]))) from None


def _correct_clock(message: Message, received_at: int) -> None:
    """`timestamp` by our clock: receivedAt − (sentAt − originalTimestamp).

    Without `sentAt` the client's time stands, without any time the arrival's.
    """
    received = to_text(received_at)
    message["receivedAt"] = _raw(received)
    name = "timestamp" if _is_absent(message, "originalTimestamp") else "originalTimestamp"
    original = _text(message, name)
    if original is None:
        message["timestamp"] = message["receivedAt"]
        return
    message["timestamp"] = message["originalTimestamp"] = message[name]
    sent = _text(message, "sentAt")
    if sent is not None:
        lag = parse_instant(sent, "sentAt") - parse_instant(original, name)
        message["timestamp"] = _instant(received_at - lag, name, original)


def _instant(at: int, where: str, original: str) -> msgspec.Raw:
    try:
        return _raw(to_text(at))
    except OverflowError:
        raise BadInput(where, "an instant near the request's", original) from None


def _text(message: Message, name: str) -> str | None:
    """The member's text, None when it is absent; BadInput when it is of another type."""
    if _is_absent(message, name):
        return None
    value = _any.decode(message[name])
    if not isinstance(value, str):
        raise BadInput(name, "a string", value)
    return value


def _is_absent(message: Message, name: str) -> bool:
    return name not in message or bytes(message[name]) in _ABSENT


def _raw(text: str | int) -> msgspec.Raw:
    return msgspec.Raw(_encode(text))


def _excerpt(body: bytes) -> str:
    return body[:200].decode(errors="replace")
