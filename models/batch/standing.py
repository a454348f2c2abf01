"""Which facts stand: each counts once, of two with one id the smaller, and those of bots not at all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from models.bots import is_storm, said_of
from models.decoding import decode
from models.errors import BadInput
from models.facts import (
    FORM_FILLS,
    IDENTITIES,
    PAGE_VIEWS,
    ContactChange,
    Fact,
    FormFill,
    PageView,
    TouchFact,
    Unlink,
    Verdict,
    key_of,
)
from models.hits import Hit
from models.leads import contact_of
from models.reports import pack
from models.rules import Rules


class RawFact(NamedTuple):
    """A fact as it lies in Kafka; `recorded_at` in microseconds."""

    topic: str
    value: bytes | None
    recorded_at: int


class Facts:
    """Every fact that stands: by topic, whom it is about, and id; and what is said of the others.

    `conflicts` are (topic, id) of facts that lost to another with their id.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.refusals: list[tuple[RawFact, BadInput]] = []
        self.conflicts: set[tuple[str, str]] = set()
        self._by_topic: dict[str, dict[str, dict[Any, Any]]] = defaultdict(lambda: defaultdict(dict))

    def of(self, topic: str) -> Mapping[str, dict[Any, Any]]:
        """The topic's facts by key and id."""
        return self._by_topic[topic]

    def take(self, raw: RawFact, before: int) -> None:
        """Keep a fact that was stamped `before` that instant."""
        try:
            fact = decode(raw.topic, raw.value, raw.recorded_at, self.rules.settings, self.rules.is_bot)
        except BadInput as error:
            self.refusals.append((raw, error))
            return
        if fact.at >= before:
            return
        if not self._keep(raw.topic, key_of(raw.topic, fact), _id_of(fact), _as_kept(fact, self)):
            self.conflicts.add((raw.topic, str(_id_of(fact))))

    def _keep(self, topic: str, key: str, fact_id: Any, fact: Any) -> bool:
        """Keep the smaller, by time and then bytes, of two facts with one id; False when they differ."""
        same_key = self._by_topic[topic][key]
        known = same_key.setdefault(fact_id, fact)
        if known == fact:
            return True
        same_key[fact_id] = min(known, fact, key=_rank)
        return False


def _id_of(fact: Fact) -> Any:
    """What a fact counts once by; of a recorded touch that is each version."""
    return fact.updated_at if isinstance(fact, TouchFact) else fact.id


def _as_kept(fact: Fact, kept: Facts) -> Any:
    match fact:
        case PageView():
            origin, path = kept.rules.arrive(fact.url, fact.referrer, fact.utm)
            return Hit(fact.at, fact.id, origin, path, fact.person, fact.is_listed)
        case ContactChange():
            return contact_of(fact)
        case _:
            return fact


def _rank(fact: Any) -> tuple[int, bytes]:
    """Time, then bytes: as sent where they are kept, else as packed."""
    return fact.at, getattr(fact, "raw", None) or pack(fact)


# --- bots -------------------------------------------------------------------------------

_OF_VISITORS = (PAGE_VIEWS, FORM_FILLS, IDENTITIES)


def leave_out_bots(kept: Facts) -> None:
    """A bot's hits, form fills and identifications are as if never sent."""
    said = [fact for facts in kept.of(IDENTITIES).values() for fact in facts.values() if isinstance(fact, Verdict)]
    for visitor in {name for topic in _OF_VISITORS for name in kept.of(topic)}:
        verdicts = [verdict for verdict in said if verdict.key in ("", visitor)]
        storms = is_storm(sorted(hit.at for hit in kept.of(PAGE_VIEWS)[visitor].values()))
        for topic in _OF_VISITORS:
            facts = kept.of(topic)[visitor]
            for fact_id in [fact_id for fact_id, fact in facts.items() if _is_bots(fact, verdicts, storms)]:
                del facts[fact_id]


def _is_bots(fact: Any, verdicts: Sequence[Verdict], storms: bool) -> bool:
    message = fact.identification if isinstance(fact, FormFill) else fact
    if isinstance(message, Unlink | Verdict):
        return False
    said = said_of(verdicts, message.at, message.id)
    return message.is_listed or storms if said is None else said
