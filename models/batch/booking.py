"""What is booked: credits and counts of leads, deals, product usage and visitors that belong to nobody."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from models.batch.accounts import Accounts
from models.batch.books import Books, Filing, Known
from models.batch.people import People
from models.batch.standing import Facts
from models.batch.touches import Owned, same_touches, uses_of
from models.conversions import (
    Cells,
    Credit,
    add_cells,
    credits_of,
    eligible,
    last_converted,
    milestones_of,
    path_of_credits,
    sums_of,
)
from models.counts import SHARED, Count, Counts, Numbers, add_counts
from models.deals import Conversion, Deal, booked_as, conversions_of, deal_parent, fold, takes_part, waiting_of, won_at
from models.facts import BILLING, DEAL_CHANGES, DealChange, Refund
from models.funnel import account_counts
from models.identity import account_id
from models.leads import account_of, role_in
from models.paths import NULL, null_path_begins, path_counts
from models.pipeline import Surroundings, deal_counts, first_channel, lead_counts
from models.rules import Rules
from models.sessions import arrived
from models.times import day_of
from models.touches import Touch
from models.usage import USES
from models.visits import Arrived


def book_leads(books: Books, filing: Filing, accounts: Accounts, rules: Rules) -> None:
    """The `lead` of everybody known."""
    own: dict[str, list[Touch]] = defaultdict(list)
    for journey in books.journeys.values():
        for person, touch in journey:
            own[person].append(touch)
    for person, at in accounts.lead_moments.items():
        conversion = Conversion("lead", person, at, 0)
        touches = eligible(own[person], "lead", at, rules)
        milestones = milestones_of("lead", at, at, None, None)
        roles = [accounts.people_roles[person]] * len(touches)
        credits = credits_of(conversion, at, touches, milestones, rules, roles)
        cells, counts = filing.of(accounts.of_person[person])
        add_cells(cells, conversion, sums_of(conversion, credits), 1, rules)
        add_counts(counts, path_of_credits(conversion, credits, rules))
        add_counts(counts, lead_counts(at, rules))
        books.leads[person] = Known(at, accounts.of_person[person], credits)


# --- deals -----------------------------------------------------------------------------


def book_deals(books: Books, filing: Filing, facts: Facts, people: People, accounts: Accounts, rules: Rules) -> None:
    """Every deal, what its account's people and deals come to, and the null paths of the account's journey."""
    first_lead: dict[str, int] = {}
    deals: dict[str, list[Deal]] = defaultdict(list)
    for known in books.leads.values():
        first_lead[known.account] = min(known.at, first_lead.get(known.account, known.at))
    conversions: dict[str, list[Conversion]] = defaultdict(list)
    for name in {**facts.of(DEAL_CHANGES), **facts.of(BILLING)}:
        changes: Iterable[DealChange] = facts.of(DEAL_CHANGES).get(name, {}).values()
        refunds: Iterable[Refund] = facts.of(BILLING).get(name, {}).values()
        deal = fold(name, changes, refunds, rules.settings.currency)
        account = _account_of_deal(deal, people, accounts, rules)
        deals[account].append(deal)
        journey = books.journeys.get(account, ())
        touches = _journey_of(deal, journey, accounts, rules)
        channel = first_channel(deal, touches, rules)
        around = Surroundings(first_lead.get(account), channel, filing.labels(account))
        roles = _roles(deal, journey, accounts) if rules.weighs_roles else {}
        _book_deal(books, filing.of(account), deal, touches, around, roles, rules)
        conversions[account] += conversions_of(deal, rules)
    people_of = Counter(known.account for known in books.leads.values())
    for account in {**people_of, **deals}:
        add_counts(filing.of(account)[1], account_counts(account, people_of[account], deals[account], rules))
    for account, journey in books.journeys.items():
        _book_null_paths(books, journey, last_converted(conversions[account]), rules)


def _account_of_deal(deal: Deal, people: People, accounts: Accounts, rules: Rules) -> str:
    kind, _, name = deal_parent(deal.account, deal.contacts, deal.id, rules).partition(":")
    return accounts.of_person[people.root(name)] if kind == "person" else accounts.root(name)


def _journey_of(deal: Deal, journey: Iterable[Owned], accounts: Accounts, rules: Rules) -> list[Touch]:
    """The touches that can earn the deal's credit."""
    if not rules.settings.deal_contacts_only:
        return [touch for _, touch in journey]
    return [touch for person, touch in journey if takes_part(person in accounts.contacts, accounts.ids[person], deal)]


def _roles(deal: Deal, journey: Iterable[Owned], accounts: Accounts) -> dict[int, str | None]:
    """The role in the deal of each touch's person."""
    return {id(touch): role_in(deal, accounts.ids[person], accounts.people_roles[person]) for person, touch in journey}


def _book_deal(
    books: Books,
    own: tuple[Cells, Counts],
    deal: Deal,
    journey: Sequence[Touch],
    around: Surroundings,
    roles: Mapping[int, str | None],
    rules: Rules,
) -> None:
    cells, counts = own
    conversions = conversions_of(deal, rules)
    booked = books.deals[deal.id] = {}
    for conversion in conversions:
        if conversion.amount is not None:
            credits = _deal_credits(deal, conversion, journey, around.lead, roles, rules)
            add_counts(counts, path_of_credits(conversion, credits, rules))
            for kind in booked_as(conversion, deal, rules):
                add_cells(cells, kind, sums_of(kind, credits), 1, rules)
            booked[f"{conversion.kind}:{conversion.id}"] = credits
    books.waiting.update(waiting_of(deal, conversions, rules))
    add_counts(counts, deal_counts(deal, conversions, around, rules))


def _deal_credits(
    deal: Deal,
    conversion: Conversion,
    journey: Sequence[Touch],
    lead: int | None,
    roles: Mapping[int, str | None],
    rules: Rules,
) -> list[Credit]:
    """The conversion's credits; a refund's by the split of the win."""
    kind, at, won = conversion.kind, conversion.at, won_at(deal, rules)
    if kind == "refund" and won is not None:
        kind, at = "won", won
    milestones = milestones_of(kind, at, lead, deal.created_at, won)
    touches = eligible(journey, kind, at, rules)
    known = [roles[id(touch)] for touch in touches] if roles else ()
    return credits_of(conversion, at, touches, milestones, rules, known)


def _book_null_paths(books: Books, journey: Sequence[Owned], last: Mapping[str, int], rules: Rules) -> None:
    """The account's touches after its last conversion of each kind, within the lookback of the latest."""
    latest = journey[-1][1].at
    for kind in rules.deal_conversions:
        begins = null_path_begins(last.get(kind), latest, rules.lookback[kind])
        channels = [touch.channel for _, touch in journey if touch.at >= begins]
        add_counts(books.counts, path_counts(kind, channels, NULL, rules.settings.markov_order))


# --- product usage ---------------------------------------------------------------------


def book_uses(filing: Filing, kept: Facts, people: People, accounts: Accounts, rules: Rules) -> None:
    """What was used of the product, under the account of whoever did."""
    for use in uses_of(kept):
        person = people.root(use.person)
        account = accounts.before_mergers.get(person) or account_of(person, [person] * ("@" in person), (), (), rules)
        if account == person and use.account is not None:
            account = account_id(use.account, rules.registrable)
        field = f"{day_of(use.at, rules.settings.time_zone)}\0{use.event}"
        _, counts = filing.of(accounts.root(account))
        add_counts(counts, [(Count(USES, field), (use.count,))])


# --- visitors --------------------------------------------------------------------------


def book_visitors(books: Books, kept: Facts, people: People, rules: Rules) -> None:
    """The null paths to a lead of visitors that belong to nobody."""
    touches: dict[str, list[Arrived]] = defaultdict(list)
    for visitor in people.visitors:
        if not visitor.marks:
            touches[visitor.name] += (each for session in visitor.sessions for each in arrived(session, rules))
    for forms, fact in same_touches(kept, people, rules):
        for number, (_, owner, touch) in enumerate(forms):
            if not (owner or (number == 0 and fact and fact.person)):
                touches[touch.visitor or ""].append(Arrived(touch.at, touch.id, touch.kind, touch.channel))
    for own in touches.values():
        own.sort()
        begins = null_path_begins(None, own[-1].at if own else None, rules.lookback["lead"])
        channels = [each.channel for each in own if each.at >= begins]
        add_counts(books.counts, path_counts("lead", channels, NULL, rules.settings.markov_order))


def shared_ids(people: People, rules: Rules) -> Iterator[tuple[Count, Numbers]]:
    """Visitors of too many people, user ids of too many e-mails."""
    for visitor in people.visitors:
        if visitor.crowd:
            yield Count(SHARED, f"visitor\0{visitor.name}"), (visitor.crowd,)
    emails: dict[str, set[str]] = defaultdict(set)
    for link in people.links:
        if "@" in link.target and "@" not in link.source:
            emails[link.source].add(link.target)
    for name, named in emails.items():
        if len(named) > rules.settings.identity.emails_per_user_id:
            yield Count(SHARED, f"user\0{name}"), (len(named),)
