"""What is the journey of each account, and how warm did it make it?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from models.alerting import weight_of
from models.batch.accounts import Accounts
from models.batch.people import People
from models.batch.touches import Owned
from models.course import History
from models.rules import Rules
from models.warmth import Touched, history_of


def journeys_of(touches: Iterable[Owned], people: People, accounts: Accounts) -> dict[str, list[Owned]]:
    """The touches of each account, oldest first."""
    journeys: dict[str, list[Owned]] = defaultdict(list)
    for name, touch in touches:
        person = people.root(name)
        journeys[accounts.of_person[person]].append((person, touch))
    for journey in journeys.values():
        journey.sort(key=lambda owned: owned[1].order)
    return dict(journeys)


def warmth_of(journeys: Mapping[str, Sequence[Owned]], rules: Rules) -> dict[str, History]:
    """When each account warmed and cooled; only of those that ever did."""
    scale = rules.scale
    histories = {
        name: history_of((Touched(touch.at, person, weight_of(touch, scale)) for person, touch in journey), scale)
        for name, journey in journeys.items()
    }
    return {name: history for name, history in histories.items() if history}
