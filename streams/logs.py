"""What a process says of itself on standard error: what concerns an operator, and each thing once.

Ours is told from INFO on. Libraries tell of each start, connection and retry: what they mend by
themselves is left out, what they go on complaining of is told. Whatever repeats itself is told ever
more seldom. A server that is away is one line, and another when it is back; the complaints of
clients meanwhile are left out.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable

from models.settings import Settings
from streams.reaching import reach_kafka, reach_redis

OURS = ("streams", "models")
PATIENCE_SECONDS = 5.0
"""What a library complains of for less than this it mends by itself."""
FIRST_SILENCE_SECONDS, LONGEST_SILENCE_SECONDS = 60.0, 3600.0
LOOK_SECONDS = 1.0
MOST_REMEMBERED = 500
_OF_A_SERVICE = "[^"
"""How Faust begins what it says of a service in that module's name."""
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


class Repeated:
    """Something that is said again and again: when for the first and the last time, and when it may be told next."""

    def __init__(self, now: float, told_from: float) -> None:
        self.last = now
        self.told_from = told_from
        self.left_out = 0
        self._silence = FIRST_SILENCE_SECONDS

    def is_over(self, now: float) -> bool:
        """Has it not been said for so long that it counts as new?"""
        return now - self.last > max(self._silence, PATIENCE_SECONDS)

    def is_told(self, now: float) -> bool:
        """Is it told this time? Each time the next one is put off for longer."""
        self.last = now
        if now < self.told_from:
            self.left_out += 1
            return False
        self.told_from = now + self._silence
        self._silence = min(2 * self._silence, LONGEST_SILENCE_SECONDS)
        return True


class Discretion(logging.Filter):
    """Leaves out what says nothing new.

    `is_suspicious` when anything was complained of since it was last set back; while `is_explained`
    libraries say nothing. A failure with its traceback is always told.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.is_suspicious = False
        self.is_explained = False
        self._clock = clock
        self._said: dict[tuple[str, str], Repeated] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Is the record told? How often it was left out before is added to it."""
        is_ours = record.name.startswith(OURS) and not str(record.msg).startswith(_OF_A_SERVICE)
        if record.levelno < logging.WARNING:
            return is_ours
        self.is_suspicious = True
        if record.exc_info or record.levelno >= logging.CRITICAL:
            return True
        return self._is_news(record) if is_ours else not self.is_explained and self._is_news(record, PATIENCE_SECONDS)

    def _is_news(self, record: logging.LogRecord, patience: float = 0.0) -> bool:
        """Libraries vary a message by its arguments alone, ours differ when their words do."""
        now, name = self._clock(), (record.name, str(record.msg) if patience else record.getMessage())
        known = self._said.get(name)
        if len(self._said) > MOST_REMEMBERED:
            self._said = {each: said for each, said in self._said.items() if not said.is_over(now)}
        if known is None or known.is_over(now):
            known = self._said[name] = Repeated(now, now + patience)
        if not known.is_told(now):
            return False
        if known.left_out:
            record.msg, record.args = f"{record.getMessage()} ({known.left_out:,} times more)", ()
            known.left_out = 0
        return True

    def explain(self, is_explained: bool) -> None:
        """Libraries' complaints are explained now, or no more: what they complained of is over."""
        self.is_explained = is_explained
        self._said.clear()


DISCRETION = Discretion()
"""That of this process."""


class Outages:
    """Tells when a server is away, and when it is back; asks them only when there is a complaint."""

    def __init__(self, settings: Settings, discretion: Discretion = DISCRETION) -> None:
        self._asks: dict[str, Callable[[Settings], Awaitable[None]]] = {"Redis": reach_redis, "Kafka": reach_kafka}
        self._settings = settings
        self._discretion = discretion
        self._away: dict[str, float] = {}

    async def watch(self) -> None:
        """Look after every complaint, without end."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._discretion.is_suspicious or self._away:
                self._discretion.is_suspicious = False
                await self.look()

    async def look(self) -> None:
        """Ask both servers, and tell what is new."""
        for name, ask in self._asks.items():
            try:
                await ask(self._settings)
            except Exception as error:  # whatever it is: to tell of it must not end the process
                if name not in self._away:
                    self._away[name] = time.monotonic()
                    log.error("%s; waiting for it", str(error).rstrip("."))
            else:
                if name in self._away:
                    log.warning("%s answers again, after %.0f s", name, time.monotonic() - self._away.pop(name))
        if bool(self._away) != self._discretion.is_explained:
            self._discretion.explain(bool(self._away))


def set_up(settings: Settings) -> None:
    """Log to standard error, with discretion; a thread looks after complaints, whatever becomes of our event loop."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(DISCRETION)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    watching = Outages(settings).watch
    threading.Thread(target=lambda: asyncio.run(watching()), name="outages", daemon=True).start()


def suspect() -> None:
    """A server may be away: a complaint that is not logged."""
    DISCRETION.is_suspicious = True
