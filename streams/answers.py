"""How errors leave over HTTP: one table from error to status, one shape of body."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from models.errors import BadInput, Fenced, NotFound, NotYet, TouchlineError, Unavailable
from streams.redis_clients import REDIS_AWAY


class Unauthorized(TouchlineError):
    """The write key is missing or none of ours."""


class TooLarge(TouchlineError):
    """The body, packed or inflated, is longer than `web.max_body_bytes`."""


STATUS: dict[type[TouchlineError], int] = {
    NotYet: 202,
    BadInput: 400,
    Unauthorized: 401,
    NotFound: 404,
    TooLarge: 413,
    TouchlineError: 500,
    Fenced: 503,
    Unavailable: 503,
}

CODES = {
    202: "not_yet",
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "try_later",
    500: "internal_error",
    503: "unavailable",
}


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every answer that is an error."""

    code: str
    message: str
    where: str | None = None
    expected: str | None = None
    got: str | None = None


def status_of(error: TouchlineError) -> int:
    """The status of the error's class, or of the nearest class above it."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, error: Exception | str) -> bytes:
    """The error as JSON with `code` and `message`; for bad input what was expected where, too."""
    body = Problem(CODES.get(status, "error"), str(error))
    if isinstance(error, BadInput):
        body.where, body.expected, body.got = error.where, error.expected, error.got
    return msgspec.json.encode(body)


@contextmanager
def translated() -> Iterator[None]:
    """Redis's own errors of being away, within the block, leave it as Unavailable."""
    try:
        yield
    except REDIS_AWAY as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
