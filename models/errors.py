"""Every error Touchline raises on purpose.

TouchlineError
├── BadInput        a fact, setting or request is wrong: refused, never retried
├── NotFound        what was asked for does not exist
├── NotYet          the answer takes longer than a request may: ask again (retriable)
├── Unavailable     a server is away: wait and try again (retriable)
└── Fenced          another worker owns the partition now: give it up
"""


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


def shorten(value: object, most: int = 200) -> str:
    """The value as text for a message, cut to `most` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
