"""Every error Touchline raises on purpose.

TouchlineError
├── BadInput        a fact, setting or request is wrong: refused, never retried
├── NotFound        what was asked for does not exist
├── NotYet          the answer takes longer than a request may: ask again (retriable)
├── Unavailable     a server is away: wait and try again (retriable)
└── Fenced          another worker owns the partition now: give it up
"""

import re

import msgspec


class TouchlineError(Exception):
    """The root of the tree; `retriable` says whether the same call may succeed later."""

    retriable = False


class BadInput(TouchlineError):
    """`got` stood at `where`, but `expected` was needed."""

    def __init__(self, where: str, expected: str, got: object) -> None:
        self.where = where
        self.expected = expected
        self.got = shorten(got)
        super().__init__(f"{where}: expected {expected}, got {self.got}")


class NotFound(TouchlineError):
    """Nothing is known under the id that was asked for."""


class NotYet(TouchlineError):
    """The answer is being worked out; `done` of `total` accounts are looked through."""

    retriable = True

    def __init__(self, done: int, total: int) -> None:
        self.done = done
        self.total = total
        super().__init__(f"the answer is being worked out: {done:,} of {total or '?'} accounts; ask again")


class Unavailable(TouchlineError):
    """Kafka or Redis is away, or answers too late."""

    retriable = True


class Fenced(TouchlineError):
    """The lane partition was committed to by another owner."""


_MISSING = re.compile(r"Object missing required field `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")
_WRONG = re.compile(r"Expected (.+?)(?:, got (.+))?")


def misfit(error: Exception, where: str = "", came: str = "") -> BadInput:
    """What msgspec says of a document that is not of its type, as BadInput; a field's place in it follows `where`.

    `came` is the document, where it may be shown.
    """
    message, _, path = str(error).partition(" - at `$")
    if found := _MISSING.fullmatch(message):
        return BadInput(_placed(where, path, found[1]), "a value", came or "nothing")
    if found := _UNKNOWN.fullmatch(message):
        return BadInput(_placed(where, path, found[1]), "a name that is known", found[1])
    if found := _WRONG.fullmatch(message.replace("`", "")):
        return BadInput(_placed(where, path), found[1], came or found[2] or "another")
    expected = "a value that fits" if isinstance(error, msgspec.ValidationError) else "JSON in UTF-8"
    return BadInput(_placed(where, path), expected, f"{message}: {came}" if came else message)


def _placed(where: str, path: str, field: str = "") -> str:
    inside = ".".join(filter(None, (path.strip("`."), field)))
    return where + inside if inside else where.rstrip(":. ")


def shorten(value: object, most: int = 200) -> str:
    """The value as text for a message, cut to `most` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
