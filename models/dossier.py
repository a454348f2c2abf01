"""What an account holds: its people, their touches and its deals, indexed from its parts.

A person's touches carry the person's path (models.received), or one that begins with it.
"""

from collections.abc import Sequence

from models.conversions import last_converted
from models.counts import Counted
from models.deals import Conversion, Deal, conversions_of, takes_part
from models.entity import put
from models.journeys import Journey, order_of
from models.leads import Lead, role_in
from models.paths import null_path_begins
from models.received import Received, received, used_in
from models.reports import Changes, Parts
from models.rules import Rules
from models.touches import Touch
from models.usage import uses_in


class Dossier:
    """People by path, deals and their conversions by part name, and the journey; `parts` are shared with the account.

    `first_lead` is the earliest lead moment of its people.
    """

    __slots__ = (
        "_last_converted", "_persons", "conversions", "deals", "first_lead", "journey", "leads", "parts", "rules",
    )  # fmt: skip

    def __init__(self, parts: Parts, rules: Rules) -> None:
        self.parts = parts
        self.rules = rules
        self.journey = Journey(rules.settings.markov_order)
        self.leads: dict[str, Lead] = {}
        self.first_lead: int | None = None
        self._persons: dict[str, str] = {}
        self.deals: dict[str, Deal] = {}
        self.conversions: dict[str, list[Conversion]] = {}
        self._last_converted: dict[str, int] | None = None
        self._index(received(parts, {}))
        self._begin_null_paths()

    def take(self, changes: Changes, brought: Received) -> Counted:
        """Take the new parts, and what they bring; returns what the counts of null paths change by."""
        self._index(brought)
        for name, value in changes.items():
            put(self.parts, name, value)
        self._begin_null_paths()
        return self.journey.changes()

    def _index(self, brought: Received) -> None:
        for path, was, now in brought.touches:
            if was is not None:
                self.journey.remove(path, was)
            if now is not None:
                self.journey.add(path, now)
        if brought.leads:
            self._index_leads(brought.leads)
        for name, deal in brought.deals.items():
            self._index_deal(name, deal)

    def _index_leads(self, leads: dict[str, Lead | None]) -> None:
        self._persons.clear()
        for path, lead in leads.items():
            if lead is None:
                self.leads.pop(path, None)
            else:
                self.leads[path] = lead
        self.first_lead = min([lead.at for lead in self.leads.values()], default=None)

    def _index_deal(self, name: str, deal: Deal | None) -> None:
        self._last_converted = None
        if deal is None:
            self.deals.pop(name, None)
            self.conversions.pop(name, None)
        else:
            self.deals[name] = deal
            self.conversions[name] = conversions_of(deal, self.rules)

    def _begin_null_paths(self) -> None:
        """Let each kind's null path begin where the account's last conversion and latest touch say."""
        latest = self.journey.touches[-1].at if self.journey.touches else None
        if self._last_converted is None:
            self._last_converted = last_converted(each for made in self.conversions.values() for each in made)
        last, lookback = self._last_converted, self.rules.lookback
        self.journey.begin(
            {kind: null_path_begins(last.get(kind), latest, lookback[kind]) for kind in self.rules.deal_conversions}
        )

    # --- whose touches they are -----------------------------------------------------

    def lead_path(self, path: str) -> str | None:
        """The path of the person whose touches carry this one; None: of nobody known."""
        for length in range(8, len(path) + 1, 8):
            if path[:length] in self.leads:
                return path[:length]
        return None

    def lead_of(self, path: str) -> Lead | None:
        """The person whose touches carry this path, as the account holds them."""
        lead = self.lead_path(path)
        return None if lead is None else self.leads[lead]

    def person_of(self, path: str) -> str | None:
        """The person whose touches carry this path."""
        lead = self.lead_of(path)
        return None if lead is None else lead.person

    def whose(self, path: str) -> str:
        """The person whose touches carry this path, or the path where nobody is known by it."""
        person = self._persons.get(path)
        if person is None:
            person = self._persons[path] = self.person_of(path) or path
        return person

    # --- journeys -------------------------------------------------------------------

    def touches_of_person(self, path: str) -> list[Touch]:
        """The touches of the person with this path, oldest first."""
        paths = sorted(each for each in self.journey.by_path if each.startswith(path))
        lists = [self.journey.by_path[each] for each in paths]
        return lists[0] if len(lists) == 1 else _in_order(lists)

    def touches_for(self, deal: Deal) -> list[Touch]:
        """The touches that can earn the deal's credit, oldest first."""
        if not self.rules.settings.deal_contacts_only:
            return self.journey.touches
        return _in_order([each for path, each in sorted(self.journey.by_path.items()) if self._takes_part(path, deal)])

    def _takes_part(self, path: str, deal: Deal) -> bool:
        lead = self.lead_of(path)
        return lead is None or takes_part(lead.is_contact, lead.ids, deal)

    def roles(self, touches: Sequence[Touch], deal: Deal) -> list[str | None]:
        """The role in the deal of each touch's person."""
        roles: dict[int, str | None] = {}
        for path, own in self.journey.by_path.items():
            lead = self.lead_of(path)
            role = role_in(deal, lead.ids, lead.role) if lead else None
            roles.update((id(touch), role) for touch in own)
        return [roles.get(id(touch)) for touch in touches]

    @property
    def uses(self) -> dict[str, dict[str, int]]:
        """How often its people used the product: event → day → count."""
        found: dict[str, dict[str, int]] = {}
        for name in used_in(self.parts):
            for event, day, count in uses_in(name, self.parts[name]):
                days = found.setdefault(event, {})
                days[day] = days.get(day, 0) + count
        return found

    @property
    def burden(self) -> int:
        """How many credits booking every conversion anew would take."""
        return len(self.journey.touches) * sum(map(len, self.conversions.values()))


def _in_order(lists: Sequence[Sequence[Touch]]) -> list[Touch]:
    return sorted((touch for each in lists for touch in each), key=order_of)
