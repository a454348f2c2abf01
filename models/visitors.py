"""A visitor: a browser or device, its sessions, and the people it was identified as.

The step of the visitors lane. Sessions are kept apart as parts, so that a long history
costs a new hit nothing; what is reported is always a function of all facts known.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from models.bots import STORM_HITS, STORM_SPAN, Aside, is_storm, said_of
from models.channels import Origin
from models.columns import pack_hits, unpack_hits
from models.counts import SHARED, Count, Counted, Numbers
from models.entity import Conflict, Contents, Outcome, reports
from models.facts import FORM_FILLS, IDENTITIES, PAGE_VIEWS, Fact, FormFill, Identification, Unlink, Verdict
from models.hits import Hit
from models.identity import Link
from models.paths import EARLIEST, null_path_begins, replaced_path
from models.reports import (
    FORM,
    GROUP,
    KNOWN,
    LINK,
    MARK,
    OWNED,
    SAME_AS,
    TOUCH,
    VERDICT,
    WATCH,
    Changes,
    Message,
    Parts,
    Report,
    id_in,
    pack,
    tag_of,
    under,
)
from models.rules import Rules
from models.sessions import DIRECT, arrived, current_source, cut, opens_session, web_touches
from models.touches import FORM_FILL, Touch, site_touch
from models.visits import Arrived, Mark, Told

NEVER = -(2**62)
"""Earlier than any instant."""
_ID, _FILL, _UNLINK, _SESSION = "i", "F", "x", "s"
_KIND_OF = {Identification: _ID, Unlink: _UNLINK, Verdict: VERDICT}


class Site:
    """What visitors are decided by: the rules, and what is asked of them most."""

    __slots__ = ("gap", "lookback", "markov_order", "persons_per_visitor", "rules")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.gap = rules.gap
        self.lookback = rules.lookback["lead"]
        self.markov_order = rules.settings.markov_order
        self.persons_per_visitor = rules.settings.identity.persons_per_visitor


_unpack_identification = msgspec.msgpack.Decoder(Identification).decode
_unpack_fill = msgspec.msgpack.Decoder(FormFill).decode
_unpack_unlink = msgspec.msgpack.Decoder(Unlink).decode
_unpack_verdict = msgspec.msgpack.Decoder(Verdict).decode
_unpack_mark = msgspec.msgpack.Decoder(tuple[int, str]).decode
_unpack_pair = msgspec.msgpack.Decoder(tuple[str, str]).decode
_at: Callable[[Hit], int] = attrgetter("at")


_NOTHING = Told(None, (), {})


class Session:
    """Hits with no gap between them, in order; `name` is the part it is kept in.

    `told` is what was last reported of it; `retouched` says that its touches may differ since,
    `names_people` that any of its hits carried a user id.
    """

    __slots__ = ("arrived", "hits", "names_people", "retouched", "stored", "told")

    def __init__(self, hits: list[Hit], stored: str | None = None) -> None:
        self.hits = hits
        self.stored = stored
        self.retouched = stored is None
        self.arrived: list[Arrived] | None = None
        self.told = _NOTHING
        self.names_people = any([hit.person for hit in hits])

    @property
    def name(self) -> str:
        """The part's name: the session's begin."""
        return f"{_SESSION}:{self.hits[0].at}"


class Visitor:
    """One visitor's state; see `Entity` for what a lane does with it."""

    __slots__ = (
        "_all_stale", "_aside", "_changed", "_counted_crowd", "_counted_path", "_dirty", "_gone", "_ids", "_is_hot",
        "_is_path_stale", "_marks", "_site", "_storms", "_told_marks", "alias_marks", "fills", "identifications",
        "name", "owned", "roots", "sessions", "told", "unlinks", "verdicts",
    )  # fmt: skip

    def __init__(self, name: str, parts: Parts, site: Site) -> None:
        self.name = name
        self._site = site
        self._is_hot = site.rules.is_hot
        self.identifications: dict[str, Identification] = {}
        self.fills: dict[str, FormFill] = {}
        self.unlinks: dict[str, Unlink] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.alias_marks: dict[str, Mark] = {}
        self.roots: dict[str, tuple[str, str]] = {}
        self.owned: dict[str, str] = {}
        self.sessions: list[Session] = []
        self._aside = Aside()
        self._ids: dict[str, int] = {}
        self._storms = False
        self._marks: list[Mark] | None = []
        self._told_marks: Sequence[Mark] = ()
        self._dirty: Changes = {}
        self._changed: dict[int, Session] = {}
        self._gone: list[Session] = []
        self._all_stale = False
        self._counted_path: list[str] | None = []
        self._is_path_stale = False
        self.told: Contents = {}
        self._counted_crowd = 0
        if parts:
            self._load(parts)

    @property
    def tag(self) -> str:
        """What stands for the visitor in the names of parts that it reports."""
        return tag_of(f"visitor:{self.name}")

    def _load(self, parts: Parts) -> None:
        """Take the state at rest, of which everybody has been told."""
        self._load_parts(parts)
        self._ids = {hit.id: hit.at for session in self.sessions for hit in session.hits}
        self._storms = self._is_storming()
        self._counted_path = None
        if self._identified:
            self._marks = None
            self.told = self._contents()
            self._counted_crowd = self._crowd()
            self._told_marks = self._owning_marks()
            for session, told in zip(self.sessions, self._tell(self.sessions), strict=True):
                session.told = told

    def _load_parts(self, parts: Parts) -> None:
        for name, value in parts.items():
            match name[0]:
                case "s":
                    self.sessions.append(Session(unpack_hits(value), name))
                case "i":
                    self.identifications[id_in(name)] = _unpack_identification(value)
                case "F":
                    self.fills[id_in(name)] = _unpack_fill(value)
                case "x":
                    self.unlinks[id_in(name)] = _unpack_unlink(value)
                case "v":
                    self.verdicts[id_in(name) if name[1] == ":" else name] = _unpack_verdict(value)
                case "b":
                    self._aside.load(value)
                case "M":
                    at, person = _unpack_mark(value)
                    self.alias_marks[name] = Mark(at, id_in(name), person)
                case "r":
                    self.roots[name] = _unpack_pair(value)
                case "o":
                    self.owned[name] = id_in(name)
        self.sessions.sort(key=lambda session: session.hits[0])

    @property
    def _identified(self) -> bool:
        return bool(
            self.identifications
            or self.fills
            or self.alias_marks
            or any(session.names_people for session in self.sessions)
        )

    # --- facts in -------------------------------------------------------------------

    def apply(self, topic: str, fact: Fact | Hit) -> Conflict | None:
        """Take one fact of this visitor; a second one with its id may be a Conflict."""
        match fact:
            case Hit():
                return next((conflict for _, conflict in self.apply_views((fact,))), None)
            case FormFill():
                self._remember_path()
                named = fact.identification
                return self._keep(self.fills, _FILL, fact, named.at, named.id, FORM_FILLS)
            case Identification() | Unlink() | Verdict():
                return self._apply_identity(fact)
        raise TypeError(f"no fact of a visitor: {fact!r}")

    def _apply_identity(self, fact: Identification | Unlink | Verdict) -> Conflict | None:
        """Keep the smallest of the facts with one id, of whatever sort."""
        self._remember_path()
        sorts: dict[str, dict[str, Any]] = {
            _ID: self.identifications, _UNLINK: self.unlinks, VERDICT: self.verdicts,
        }  # fmt: skip
        kind = _KIND_OF[type(fact)]
        displaced = None
        for other in sorts.keys() - {kind}:
            rival = sorts[other].get(fact.id)
            if rival is None:
                continue
            if (rival.at, pack(rival)) < (fact.at, pack(fact)):
                return Conflict(IDENTITIES, fact.id, rival.at)
            del sorts[other][fact.id]
            self._dirty[f"{other}:{fact.id}"] = None
            displaced = Conflict(IDENTITIES, fact.id, fact.at)
        conflict = self._keep(sorts[kind], kind, fact, fact.at, fact.id, IDENTITIES)
        if kind == VERDICT or displaced:
            self._judge_anew()
        return conflict or displaced

    def _keep(self, kept: dict[str, Any], kind: str, fact: Any, at: int, fact_id: str, topic: str) -> Conflict | None:
        """Keep the fact, the smaller of two with one id."""
        known = kept.get(fact_id)
        if known == fact:
            return None
        loser = None
        if known is not None:
            known_at = known.identification.at if isinstance(known, FormFill) else known.at
            if (known_at, pack(known)) < (at, pack(fact)):
                return Conflict(topic, fact_id, known_at)
            loser = Conflict(topic, fact_id, at)
        kept[fact_id] = fact
        self._dirty[f"{kind}:{fact_id}"] = pack(fact)
        self._restate()
        return loser

    def _restate(self) -> None:
        """Whose the visitor is may have changed: everything is reported anew."""
        self._marks = None
        self._all_stale = True

    def apply_views(self, hits: Sequence[Hit]) -> list[tuple[Hit, Conflict]]:
        """Take page views of this visitor; those in conflict, each with its Conflict."""
        conflicts = []
        for hit in self._append_views(sorted(hits, key=_at)):
            if hit.id not in self._ids and hit.id not in self._aside.hits:
                self._take(hit)
            elif conflict := self._meet(hit):
                conflicts.append((hit, conflict))
        return conflicts

    def _append_views(self, views: Sequence[Hit]) -> Sequence[Hit]:
        """Append the hits that are new, later than all others and nothing special; returns the others.

        Of a million facts nine hundred thousand cost little more here than this one loop, which
        therefore calls nothing that it need not.
        """
        if self.fills or self.verdicts or self._storms or self._aside.hits or self._is_cut_short():
            return views
        ids, gap, longest = self._ids, self._site.rules.gap, self._site.rules.longest
        session = self.sessions[-1] if self.sessions else Session([])
        hits = session.hits
        newest = hits[-1].at if hits else NEVER
        marks = self.marks()
        reports, named_until = bool(self.told or marks), marks[-1].at if marks else NEVER
        changed = None
        others = []
        for hit in views:
            at, hit_id, origin, person = hit.at, hit.id, hit.origin, hit.person
            if at <= newest or hit_id in ids or hit.is_listed:
                others.append(hit)
                continue
            if at - newest >= gap:
                session = Session([])
                hits = session.hits
            elif at - hits[0].at >= longest or (len(hits) >= STORM_HITS and at - hits[-STORM_HITS].at < STORM_SPAN):
                others.append(hit)
                continue
            if origin is not None or person is not None:
                self._remember_path()
                session.arrived = None
            if not hits:
                self.sessions.append(session)
            if session is not changed:
                self._changed[id(session)] = changed = session
            hits.append(hit)
            ids[hit_id] = newest = at
            if reports and not session.retouched:
                session.retouched = origin is not None or named_until >= at or self._is_hot(hit.path)
            if person is not None:
                self._mark_hit(session, hit, person)
                reports, named_until = True, max(named_until, at)
        return others

    def _is_cut_short(self) -> bool:
        """Did the last session begin though the one before had not ended?"""
        if len(self.sessions) < 2:
            return False
        return self.sessions[-1].hits[0].at - self.sessions[-2].hits[-1].at < self._site.gap

    def _meet(self, hit: Hit) -> Conflict | None:
        """Of the hit and one known with its id, keep the smaller."""
        known = self._find(hit.id)
        if known == hit:
            return None
        if (known.at, pack(known)) <= (hit.at, pack(hit)):
            return Conflict(PAGE_VIEWS, hit.id, known.at)
        self._remove(known)
        self._take(hit)
        self._judge_anew()
        self._restate()
        return Conflict(PAGE_VIEWS, hit.id, hit.at)

    def _find(self, hit_id: str) -> Hit:
        at = self._ids.get(hit_id)
        if at is None:
            return self._aside.hits[hit_id]
        session = self.sessions[self._session_at(at)]
        return next(hit for hit in session.hits if hit.id == hit_id)

    # --- bots -----------------------------------------------------------------------

    def _is_bots(self, at: int, message_id: str, is_listed: bool) -> bool:
        """Is the message a bot's? The latest verdict on it holds, else the list and the storm."""
        said = said_of(self.verdicts.values(), at, message_id) if self.verdicts else None
        return is_listed or self._storms if said is None else said

    def sent(self, message_id: str) -> bool:
        """Is there a message of the visitor with this id?"""
        kept = (self._ids, self._aside.hits, self.identifications, self.fills)
        return any(message_id in each for each in kept)

    def _take(self, hit: Hit) -> None:
        """Take a new hit in, or leave it out; the one that makes a storm takes all others with it."""
        suspected = hit.is_listed or self._storms or self.verdicts
        if suspected and self._is_bots(hit.at, hit.id, hit.is_listed):
            self._aside.add(hit)
        else:
            self._insert(hit)
        may_storm = not self._storms and len(self._ids) + len(self._aside.hits) > STORM_HITS
        if may_storm and is_storm(self._times_near(hit.at)):
            self._remember_path()
            self._storms = True
            self._sort_out()

    def _times_near(self, at: int) -> list[int]:
        begin, end = at - STORM_SPAN, at + STORM_SPAN
        times = self._aside.times_near(at)
        for session in self.sessions[max(self._session_at(begin), 0) : self._session_at(end) + 1]:
            first, last = (bisect_left(session.hits, moment, key=lambda hit: hit.at) for moment in (begin, end))
            times += [hit.at for hit in session.hits[first:last]]
        return sorted(times)

    def _is_storming(self) -> bool:
        hits = self._aside.hits
        if len(self._ids) + len(hits) <= STORM_HITS:
            return False
        return is_storm(sorted([*self._ids.values(), *(hit.at for hit in hits.values())]))

    def _judge_anew(self) -> None:
        """Verdicts or hits have gone: which hits are left out may differ."""
        self._remember_path()
        self._storms = self._is_storming()
        self._sort_out()

    def _sort_out(self) -> None:
        """Leave out the hits that are a bot's, and no others."""
        hits = sorted([*(hit for session in self.sessions for hit in session.hits), *self._aside.hits.values()])
        left_out = {hit.id for hit in hits if self._is_bots(hit.at, hit.id, hit.is_listed)}
        if left_out != self._aside.hits.keys():
            self._leave_out(hits, left_out)
        self._restate()

    def _leave_out(self, hits: list[Hit], left_out: set[str]) -> None:
        for hit in hits:
            if hit.id in left_out and hit.id in self._ids:
                self._aside.add(hit)
            elif hit.id not in left_out and hit.id not in self._ids:
                self._aside.remove(hit)
        counted = [hit for hit in hits if hit.id not in left_out]
        self._ids = {hit.id: hit.at for hit in counted}
        self._gone.extend(self.sessions)
        self.sessions = [Session(cut_hits) for cut_hits in cut(counted, self._site.rules)]
        self._changed = {id(session): session for session in self.sessions}

    # --- sessions -------------------------------------------------------------------

    def _session_at(self, at: int) -> int:
        """The number of the last session that begins at or before `at`; -1 before all."""
        return bisect_right(self.sessions, at, key=lambda session: session.hits[0].at) - 1

    def _insert(self, hit: Hit) -> None:
        at = self._ids[hit.id] = hit.at
        if self.fills and any(fill.identification.at >= at for fill in self.fills.values()):
            self._restate()  # a form filled in later may have been filled in under its source
        last = self.sessions[-1] if self.sessions else None
        if last is None or at > last.hits[-1].at or hit.order > last.hits[-1].order:
            self._append(last, hit)
        else:
            self._recut(at, adding=hit)

    def _append(self, last: Session | None, hit: Hit) -> None:
        if hit.origin is not None or hit.person is not None or self.fills:
            self._remember_path()
        if last is None or opens_session(hit.at, last.hits[-1].at, last.hits[0].at, self._site.rules):
            last = Session([])
            self.sessions.append(last)
        if self._marked and not last.retouched:
            last.retouched = hit.origin is not None or self._is_hot(hit.path) or self._names_somebody_from(hit.at)
        last.hits.append(hit)
        last.arrived = None
        self._changed[id(last)] = last
        if hit.person is not None:
            self._mark_hit(last, hit, hit.person)

    def _names_somebody_from(self, at: int) -> bool:
        """Was somebody named at or after `at`, perhaps in the visit of a hit then?"""
        marks = self.marks()
        return bool(marks) and marks[-1].at >= at

    def _mark_hit(self, session: Session, hit: Hit, person: str) -> None:
        """A hit in order that names its person changes owners only if the person is new."""
        marks = self._marks
        session.names_people = True
        is_plain = not self._all_stale and not self.unlinks
        if is_plain and marks and marks[-1].person == person and marks[-1].at <= hit.at:
            session.retouched = session.retouched or marks[-1].at < session.hits[0].at
            marks.append(Mark(hit.at, hit.id, person))
        else:
            self._restate()

    def _remove(self, hit: Hit) -> None:
        if self._ids.pop(hit.id, None) is None:
            self._aside.remove(hit)
        else:
            self._recut(hit.at, removing=hit)

    def _recut(self, at: int, adding: Hit | None = None, removing: Hit | None = None) -> None:
        """Cut anew from the session before `at` to the next gap that no hit can have moved."""
        self._remember_path()
        begin = max(self._session_at(at) - 1, 0)
        end = max(self._session_at(at), begin)
        while end + 1 < len(self.sessions) and not self._apart(self.sessions[end], self.sessions[end + 1], at):
            end += 1
        old = self.sessions[begin : end + 1]
        hits = sorted(
            [hit for session in old for hit in session.hits if hit is not removing] + ([adding] if adding else [])
        )
        fresh = [Session(cut_hits) for cut_hits in cut(hits, self._site.rules)]
        self.sessions[begin : end + 1] = fresh
        self._gone.extend(old)
        for session in old:
            self._changed.pop(id(session), None)
        self._changed.update((id(session), session) for session in fresh)
        if self._marked:
            self._retouch(begin - 1)
            self._retouch(begin + len(fresh))
        if self.fills or any(session.names_people for session in fresh):
            self._restate()

    def _retouch(self, number: int) -> None:
        """Report a session anew: somebody named beside it may belong to another visit now."""
        if 0 <= number < len(self.sessions):
            session = self.sessions[number]
            session.retouched = True
            self._changed[id(session)] = session

    def _apart(self, earlier: Session, later: Session, at: int) -> bool:
        """True when a hit at `at` cannot join what follows `earlier` to it."""
        last = max(earlier.hits[-1].at, at)
        return later.hits[0].at - last >= self._site.gap and later.hits[0].at > at

    def receive(self, message: Message) -> None:
        """Take an alias of another visitor, the root of a person watched, or whose a form fill is."""
        if not isinstance(message, Report):
            raise TypeError(f"no message to a visitor: {message!r}")
        self._remember_path()
        for name, value in message.changes.items():
            mine = under(message.tag, name)
            self._dirty[mine] = value
            if name[0] == MARK:
                self._take_mark(mine, value)
            elif name[0] == VERDICT:
                self._take_verdict(mine, value)
            elif name[0] == OWNED:
                self._take_owned(mine, value)
            elif value is None:
                self.roots.pop(mine, None)
            else:
                self.roots[mine] = _unpack_pair(value)
        if any(name[0] != OWNED for name in message.changes):
            self._restate()

    def _take_owned(self, name: str, value: bytes | None) -> None:
        if value is None:
            self.owned.pop(name, None)
        else:
            self.owned[name] = id_in(name)

    def _take_verdict(self, name: str, value: bytes | None) -> None:
        """Take what the partition's roll says of a message of the visitor."""
        if value is None:
            self.verdicts.pop(name, None)
        else:
            self.verdicts[name] = _unpack_verdict(value)
        self._judge_anew()

    def _take_mark(self, name: str, value: bytes | None) -> None:
        if value is None:
            self.alias_marks.pop(name, None)
        else:
            at, person = _unpack_mark(value)
            self.alias_marks[name] = Mark(at, id_in(name), person)

    # --- whose sessions -------------------------------------------------------------

    def marks(self) -> list[Mark]:
        """Every identification that stands, oldest first."""
        if self._marks is None:
            self._marks = sorted(self._standing_marks())
        return self._marks

    def _standing_marks(self) -> list[Mark]:
        withdrawn = {unlink.unlinks for unlink in self.unlinks.values()}
        marks = list(self.alias_marks.values())
        for message in self._messages():
            if message.person and message.id not in withdrawn:
                marks.append(Mark(message.at, message.id, message.person))
        for session in self.sessions:
            if session.names_people:
                for hit in session.hits:
                    if hit.person and hit.id not in withdrawn:
                        marks.append(Mark(hit.at, hit.id, hit.person))
        return marks

    def _messages(self) -> list[Identification]:
        return [*self._identifications(), *[fill.identification for fill in self._fills()]]

    def _identifications(self) -> list[Identification]:
        """Those that count: no bot's."""
        return [each for each in self.identifications.values() if not self._is_a_bots(each)]

    def _fills(self) -> list[FormFill]:
        """The form fills that count."""
        return [fill for fill in self.fills.values() if not self._is_a_bots(fill.identification)]

    def _is_a_bots(self, message: Identification) -> bool:
        return self._is_bots(message.at, message.id, message.is_listed)

    def owner_at(self, at: int) -> str | None:
        """The person to whom a visit starting at `at` belongs; None while nobody is known."""
        marks = self.marks()
        if not marks or self._is_shared():
            return None
        number = bisect_right(marks, at, key=lambda mark: mark.at) - 1
        return marks[max(number, 0)].person

    def _owning_marks(self) -> Sequence[Mark]:
        """The marks by which sessions are told: none of a visitor that is too many people."""
        return () if self._is_shared() else self.marks()

    def _persons(self) -> set[str]:
        return {mark.person for mark in self.marks()}

    def _is_shared(self) -> bool:
        """More people than one visitor can be: all its identifications lapse."""
        return self._crowd() > 0

    def _crowd(self) -> int:
        """How many people the visitor is, counted after merging; 0 where one visitor can be so many."""
        most = self._site.persons_per_visitor
        persons = self._persons() if len(self.marks()) > most else ()
        if len(persons) <= most:
            return 0
        roots = dict(self.roots.values())
        people = len({roots.get(person, person) for person in persons})
        return people if people > most else 0

    def _crowd_counts(self, counted: int) -> list[tuple[Count, Numbers]]:
        """What the visitor's place among the shared ones changes by, where it is counted as so many people."""
        change = self._crowd() - counted
        return [(Count(SHARED, f"visitor\0{self.name}"), (change,))] if change else []

    # --- on no way to a lead ---------------------------------------------------------

    def _remember_path(self) -> None:
        """Note the null path as it was counted; to be called before anything that it may change by."""
        if self._counted_path is None:
            self._counted_path = self._null_path()
        self._is_path_stale = True

    def _null_path(self) -> list[str]:
        """The channels by which a visitor came who belongs to nobody, within the lookback of the latest touch."""
        if not (self.sessions or self.fills) or (self.marks() and not self._is_shared()):
            return []
        found = sorted(self._nobodys_fills()) if self.fills else []
        begins = self._path_begins(found)
        for session in reversed(self.sessions):
            if session.hits[-1].at < begins:
                break
            if session.arrived is None:
                session.arrived = arrived(session.hits, self._site.rules)
            if session.arrived:
                begins = max(begins, self._path_begins(session.arrived))
                found[:0] = session.arrived
        if self.fills:
            found.sort()
        return [each.channel for each in found if each.at >= begins]

    def _path_begins(self, touches: Sequence[Arrived]) -> int:
        return null_path_begins(None, touches[-1].at, self._site.lookback) if touches else EARLIEST

    def _nobodys_fills(self) -> list[Arrived]:
        """The forms filled in that name nobody, unless another system says whose they are."""
        withdrawn = {unlink.unlinks for unlink in self.unlinks.values()}
        owned = set(self.owned.values())
        found = []
        for fill in self._fills():
            named = fill.identification
            if (named.person is None or named.id in withdrawn) and named.id not in owned:
                found.append(Arrived(named.at, named.id, FORM_FILL, self._form_touch(fill).channel))
        return found

    def counts(self) -> Counted:
        """All that the visitor's state adds to the counts."""
        path = replaced_path("lead", [], self._null_path(), self._site.markov_order)
        return (*path, *self._crowd_counts(0))

    def _path_changes(self) -> list[tuple[Count, Numbers]]:
        """What the counts of null paths change by."""
        old = self._counted_path
        if old is None or not self._is_path_stale:
            return []
        new = self._counted_path = self._null_path()
        self._is_path_stale = False
        return [] if old == new else replaced_path("lead", old, new, self._site.markov_order)

    # --- reports out ----------------------------------------------------------------

    def flush(self) -> Outcome:
        """What changed in storage, and what people, touches and other visitors must be told."""
        messages: Sequence[Message] = ()
        counts = self._path_changes()
        if self._all_stale or self._marked:
            old, new = self._touch_changes()
            if self._all_stale:
                told = self._contents()
                old, new, self.told = _merge(old, self.told), _merge(new, told), told
                counts += self._crowd_counts(self._counted_crowd)
                self._counted_crowd = self._crowd()
            messages = reports(old, new, self.tag)
        outcome = Outcome(self._stored_changes(), messages, counts)
        self._changed, self._gone, self._dirty, self._all_stale = {}, [], {}, False
        return outcome

    def _stored_changes(self) -> Changes:
        changes = self._dirty
        for session in self._gone:
            if session.stored:
                changes[session.stored] = None
        for session in self._changed.values():
            if session.stored is None:
                session.stored = session.name
            changes[session.stored] = pack_hits(session.hits)
        changes.update(self._aside.changes())
        return changes

    def _touch_changes(self) -> tuple[Contents, Contents]:
        """The touches of the sessions that may have changed: as reported, and as they are."""
        sessions = self._in_doubt()
        old: Contents = {}
        new: Contents = {}
        for session in self._gone:
            _add(old, session.told)
        for session, told in zip(sessions, self._tell(sessions), strict=True):
            session.retouched = False
            if told is not session.told:
                _add(old, session.told)
                _add(new, told)
                session.told = told
        return old, new

    def _in_doubt(self) -> Sequence[Session]:
        """The sessions of which something else may have to be told than was."""
        retouched = [session for session in self._changed.values() if session.retouched]
        if not self._all_stale:
            return retouched
        old, new = self._told_marks, self._owning_marks()
        self._told_marks = new
        if _owners(old) != _owners(new):
            return self.sessions
        in_doubt = {id(session): session for session in retouched}
        for mark in {*old} ^ {*new}:  # somebody became known in another visit, or no longer did in one
            session = self.visit_at(mark.at)
            if session:
                in_doubt[id(session)] = session
        return list(in_doubt.values())

    @property
    def _marked(self) -> bool:
        return bool(self.told or self.marks())

    def _tell(self, sessions: Sequence[Session]) -> list[Told]:
        """What is to be told of each session: the very thing that was where nothing differs."""
        marks = self._owning_marks() if sessions else ()
        if not marks:
            return [_NOTHING] * len(sessions)
        times = [mark.at for mark in marks]
        known = self._known_in(sessions, marks, times)
        told = []
        for session in sessions:
            owner = marks[max(bisect_right(times, session.hits[0].at) - 1, 0)].person
            told.append(self._told_of(session, owner, known.get(id(session), ())))
        return told

    def _told_of(self, session: Session, owner: str, known: tuple[int, ...]) -> Told:
        told = session.told
        if session.retouched or told.owner is None or told.known != known:
            touches = web_touches(session.hits, self.name, self._site.rules)
            return Told(owner, known, {f"{TOUCH}:{each.id}": pack(each) for each in _with_known(touches, known)})
        return told if told.owner == owner else Told(owner, known, told.touches)

    def _known_in(
        self, sessions: Sequence[Session], marks: Sequence[Mark], times: Sequence[int]
    ) -> dict[int, tuple[int, ...]]:
        """When each person was first named in the visits of these sessions, by id()."""
        if len(marks) > len(sessions):  # else it costs less to look at them all
            gap = self._site.gap
            begin = bisect_left(times, min([session.hits[0].at for session in sessions]) - gap)
            end = bisect_right(times, max([session.hits[-1].at for session in sessions]) + gap)
            marks = marks[begin:end]
        first: dict[int, dict[str, int]] = {}
        for mark in marks:
            first.setdefault(id(self.visit_at(mark.at)), {}).setdefault(mark.person, mark.at)
        return {number: tuple(sorted({*named.values()})) for number, named in first.items()}

    def visit_at(self, at: int) -> Session | None:
        """The session that a hit at `at` would join."""
        number = self._session_at(at)
        if number >= 0:
            session = self.sessions[number]
            last = next(hit.at for hit in reversed(session.hits) if hit.at <= at)
            if not opens_session(at, last, session.hits[0].at, self._site.rules):
                return session
        following = self.sessions[number + 1] if number + 1 < len(self.sessions) else None
        return following if following and following.hits[0].at - at < self._site.gap else None

    def _contents(self) -> Contents:
        """What everybody should hold of this visitor, touches of sessions apart."""
        contents: Contents = {}
        for to, name, value in self._told():
            contents.setdefault(to, {})[name] = value
        return contents

    def _told(self) -> list[tuple[str, str, bytes]]:
        """Whom it tells of itself, by what part, and what."""
        if not self._identified:
            return []
        told = [(f"person:{person}", f"{KNOWN}:", pack(at)) for person, at in self._first_named().items()]
        withdrawn = {unlink.unlinks for unlink in self.unlinks.values()}
        said = [(_ID, message) for message in self._identifications()]
        said += [(_FILL, fill.identification) for fill in self._fills()]
        for kind, message in said:
            if message.id not in withdrawn:
                told += _told_links(kind, message, self.name)
        for fill in self._fills():
            told += self._told_fill(fill, withdrawn)
        if len(self._persons()) > self._site.persons_per_visitor:
            told += [(f"person:{person}", f"{WATCH}:", pack(self.name)) for person in self._persons()]
        return told

    def _first_named(self) -> dict[str, int]:
        first: dict[str, int] = {}
        named = [(message.at, name) for message in self._messages() for name in message.names]
        named += [
            (hit.at, hit.person)
            for session in self.sessions
            if session.names_people
            for hit in session.hits
            if hit.person
        ]
        for at, name in sorted(named):
            first.setdefault(name, at)
        return first

    def _told_fill(self, fill: FormFill, withdrawn: set[str]) -> list[tuple[str, str, bytes]]:
        named = fill.identification
        person = None if named.id in withdrawn else named.person
        owner = person or self.owner_at(named.at)
        claim = pack((owner, self._form_touch(fill)))
        told = [(f"touch:{fill.external_id or named.id}", f"{FORM}:{named.id}", claim)]
        if fill.external_id and fill.external_id != named.id:
            told.append((f"touch:{named.id}", f"{SAME_AS}:", pack(fill.external_id)))
        return told

    def _form_touch(self, fill: FormFill) -> Touch:
        """The form fill as a touch, under the source that was current on the site."""
        named = fill.identification
        order = (named.at, named.id)
        number = bisect_right(self.sessions, order, key=lambda session: session.hits[0].order) - 1
        hits: Sequence[Hit] = self.sessions[number].hits if number >= 0 else ()
        before = [hit.at for hit in hits if hit.order <= order]
        if before and named.at - before[-1] < self._site.gap:
            source = current_source(hits, order)
            return self._site_touch(fill, source.origin, source.hit.path)
        arrival = self._site.rules.arrive(fill.url, fill.referrer, fill.utm)
        return self._site_touch(fill, arrival.origin or DIRECT, arrival.path)

    def _site_touch(self, fill: FormFill, origin: Origin, path: str) -> Touch:
        named = fill.identification
        return site_touch(named.at, named.id, FORM_FILL, origin, path, self.name, self._site.rules)


def _told_links(kind: str, message: Identification, visitor: str) -> list[tuple[str, str, bytes]]:
    told = []
    for source, target in message.links:
        link = Link(message.at, message.id, source, target)
        told.append((f"person:{source}", f"{LINK}:{kind}{message.id}", pack(link)))
    if message.group:
        person, group = message.group
        told.append((f"person:{person}", f"{GROUP}:{message.id}", pack((message.at, group))))
    if message.other_visitor and message.person and message.other_visitor != visitor:
        mark = pack((message.at, message.person))
        told.append((f"visitor:{message.other_visitor}", f"{MARK}:{message.id}", mark))
    return told


def _with_known(touches: list[Touch], known: Sequence[int]) -> list[Touch]:
    """The touches of a session, each with the moments at which people became known in its visit."""
    if not known:
        return touches
    moments: dict[int, list[int]] = {}
    for at in known:
        upto = [number for number, touch in enumerate(touches) if touch.at <= at]
        moments.setdefault(upto[-1] if upto else 0, []).append(at)
    return [
        msgspec.structs.replace(touch, known_at=tuple(moments[number])) if number in moments else touch
        for number, touch in enumerate(touches)
    ]


def _owners(marks: Sequence[Mark]) -> list[tuple[int, str]]:
    """Since when whose the visitor is; the first owner's from the beginning."""
    owners: list[tuple[int, str]] = []
    for mark in marks:
        if not owners or owners[-1][1] != mark.person:
            owners.append((mark.at if owners else NEVER, mark.person))
    return owners


def _add(contents: Contents, told: Told) -> None:
    if told.touches:
        contents.setdefault(f"person:{told.owner}", {}).update(told.touches)


def _merge(first: Contents, second: Contents) -> Contents:
    return {to: {**first.get(to, {}), **second.get(to, {})} for to in {*first, *second}}
