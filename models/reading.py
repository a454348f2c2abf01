"""What is kept of an account's warmth: the reading of its gauge, and what was told of it."""

from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from models.alerts import Name, State
from models.course import COLD, Transition
from models.warmth import Course

REMEMBERED_ALERTS = 16
"""So many alerts of an account are recognised when corrections bring their transitions back."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The state told last, the lane's clock then, and the alert sent last; `due` when the lane looks again.

    `sent` are the instants and states of the alerts sent last: corrections may bring one of these
    transitions back, which is not told a second time.
    """

    state: State = COLD
    clock: int = 0
    alert: str | None = None
    due: int | None = None
    sent: tuple[tuple[int, State], ...] = ()

    def after(self, transition: Transition) -> "Told":
        """The same once this transition was sent."""
        return replace(self, sent=(*self.sent, (transition.at, transition.state))[-REMEMBERED_ALERTS:])


class Brief(NamedTuple):
    """The touch that an account's present state is put down to, in short."""

    kind: str
    channel: str
    campaign: str | None
    person: str


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """An account's warmth at a glance: all that its score depends on until something else happens.

    `total` is the sum of its touches' weights as they were worth at `at` (as Course has it,
    in bytes), `lasts` the last touches of the active persons that count.
    """

    state: State
    since: int | None
    transition: Name | None
    rewarmed: bool
    at: int
    total: bytes
    lasts: tuple[int, ...]
    cause: Brief | None

    @property
    def course(self) -> Course:
        """The course that goes on from here."""
        active = {str(number): last for number, last in enumerate(self.lasts)}
        return Course(self.at, int.from_bytes(self.total), active, self.state)
