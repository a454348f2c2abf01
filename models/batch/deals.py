"""What is booked of deals, and of the accounts that have them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.batch.accounts import Accounts
from models.batch.books import Filing
from models.batch.people import People
from models.batch.standing import Facts
from models.batch.touches import Owned
from models.conversions import (
    Credit,
    Weighing,
    add_cells,
    credits_of,
    eligible,
    last_converted,
    milestones_of,
    path_of_credits,
    sums_of,
)
from models.counts import add_counts
from models.deals import Conversion, Deal, booked_as, conversions_of, deal_parent, fold, takes_part, waiting_of, won_at
from models.facts import BILLING, DEAL_CHANGES
from models.funnel import account_counts
from models.leads import role_in
from models.paths import NULL, null_path_begins, path_counts
from models.pipeline import Surroundings, deal_counts, first_channel
from models.rules import Rules
from models.touches import Touch


class Weighed(NamedTuple):
    """A deal, the touches that can earn its credit, oldest first, and by `id(touch)` the role of each one's person."""

    deal: Deal
    touches: list[Touch]
    roles: dict[int, str | None]


def deals_of(kept: Facts, people: People, accounts: Accounts, rules: Rules) -> dict[str, list[Deal]]:
    """The deals of each account."""
    changes, refunds = kept.of(DEAL_CHANGES), kept.of(BILLING)
    deals: dict[str, list[Deal]] = defaultdict(list)
    for name in {**changes, **refunds}:
        deal = fold(name, changes.get(name, {}).values(), refunds.get(name, {}).values(), rules.settings.currency)
        kind, _, parent = deal_parent(deal.account, deal.contacts, deal.id, rules).partition(":")
        account = accounts.of_person[people.root(parent)] if kind == "person" else accounts.root(parent)
        deals[account].append(deal)
    return deals


def book_deals(filing: Filing, deals: Mapping[str, Sequence[Deal]], accounts: Accounts) -> None:
    """Every deal, what its account's people and deals come to, and the null paths of the account's journey."""
    books, rules = filing.books, filing.rules
    first_leads: dict[str, int] = {}
    for known in books.leads.values():
        first_leads[known.account] = min(known.at, first_leads.get(known.account, known.at))
    conversions: dict[str, list[Conversion]] = defaultdict(list)
    for account, own in deals.items():
        around = Surroundings(first_leads.get(account), labels=filing.labels(account))
        for deal in own:
            weighed = _weighed(deal, books.journeys.get(account, ()), accounts, rules)
            conversions[account] += _book_deal(filing, account, weighed, around)
    people = Counter(known.account for known in books.leads.values())
    for account in {**people, **deals}:
        counted = account_counts(account, people[account], deals.get(account, ()), rules)
        add_counts(filing.of(account)[1], counted)
    for account, journey in books.journeys.items():
        _book_null_paths(filing, journey, last_converted(conversions[account]))


def _weighed(deal: Deal, journey: Sequence[Owned], accounts: Accounts, rules: Rules) -> Weighed:
    contacts, ids, roles = accounts.contacts, accounts.ids, accounts.people_roles
    if rules.settings.deal_contacts_only:
        journey = [(person, touch) for person, touch in journey if takes_part(person in contacts, ids[person], deal)]
    played: dict[int, str | None] = {}
    if rules.weighs_roles:
        played = {id(touch): role_in(deal, ids[person], roles[person]) for person, touch in journey}
    return Weighed(deal, [touch for _, touch in journey], played)


def _book_deal(filing: Filing, account: str, weighed: Weighed, around: Surroundings) -> list[Conversion]:
    """The deal's credits and counts, the latter in these surroundings but for the first channel; its conversions."""
    deal, rules = weighed.deal, filing.rules
    cells, counts = filing.of(account)
    conversions = conversions_of(deal, rules)
    booked = filing.books.deals[deal.id] = {}
    for conversion in conversions:
        if conversion.amount is not None:
            credits = _credits(weighed, conversion, around.lead, rules)
            add_counts(counts, path_of_credits(conversion, credits, rules))
            for each in booked_as(conversion, deal, rules):
                add_cells(cells, each, sums_of(each, credits), 1, rules)
            booked[f"{conversion.kind}:{conversion.id}"] = credits
    filing.books.waiting.update(waiting_of(deal, conversions, rules))
    around = around._replace(channel=first_channel(deal, weighed.touches, rules))
    add_counts(counts, deal_counts(deal, conversions, around, rules))
    return conversions


def _credits(weighed: Weighed, conversion: Conversion, lead: int | None, rules: Rules) -> list[Credit]:
    """The conversion's credits; a refund's by the split of the win."""
    kind, at, won = conversion.kind, conversion.at, won_at(weighed.deal, rules)
    if kind == "refund" and won is not None:
        kind, at = "won", won
    milestones = milestones_of(kind, at, lead, weighed.deal.created_at, won)
    touches = eligible(weighed.touches, kind, at, rules)
    roles = [weighed.roles[id(touch)] for touch in touches] if weighed.roles else ()
    return credits_of(conversion, Weighing(at, touches, milestones, roles), rules)


def _book_null_paths(filing: Filing, journey: Sequence[Owned], last: Mapping[str, int]) -> None:
    """The account's touches after its last conversion of each kind, within the lookback of the latest."""
    rules, latest = filing.rules, journey[-1][1].at
    for kind in rules.deal_conversions:
        begins = null_path_begins(last.get(kind), latest, rules.lookback[kind])
        channels = [touch.channel for _, touch in journey if touch.at >= begins]
        add_counts(filing.books.counts, path_counts(kind, channels, NULL, rules.settings.markov_order))
