"""What is booked beside deals: of leads, product usage, and visitors that belong to nobody."""

from collections import defaultdict
from collections.abc import Iterator

from models.batch.accounts import Accounts
from models.batch.books import Books, Filing, Known
from models.batch.people import People
from models.batch.standing import Facts
from models.batch.touches import same_touches, uses_of
from models.conversions import Weighing, add_cells, credits_of, eligible, milestones_of, path_of_credits, sums_of
from models.counts import SHARED, Count, Numbers, add_counts
from models.deals import Conversion
from models.identity import account_id
from models.leads import account_of
from models.paths import NULL, null_path_begins, path_counts
from models.pipeline import lead_counts
from models.rules import Rules
from models.sessions import arrived
from models.times import day_of
from models.touches import Touch
from models.usage import USES
from models.visits import Arrived


def book_leads(filing: Filing, accounts: Accounts) -> None:
    """The `lead` of everybody known."""
    books, rules = filing.books, filing.rules
    own: dict[str, list[Touch]] = defaultdict(list)
    for journey in books.journeys.values():
        for person, touch in journey:
            own[person].append(touch)
    for person, at in accounts.lead_moments.items():
        conversion = Conversion("lead", person, at, 0)
        touches = eligible(own[person], "lead", at, rules)
        milestones = milestones_of("lead", at, at, None, None)
        roles = [accounts.people_roles[person]] * len(touches)
        credits = credits_of(conversion, Weighing(at, touches, milestones, roles), rules)
        cells, counts = filing.of(accounts.of_person[person])
        add_cells(cells, conversion, sums_of(conversion, credits), 1, rules)
        add_counts(counts, path_of_credits(conversion, credits, rules))
        add_counts(counts, lead_counts(at, rules))
        books.leads[person] = Known(at, accounts.of_person[person], credits)


# --- product usage ---------------------------------------------------------------------


def book_uses(filing: Filing, kept: Facts, people: People, accounts: Accounts) -> None:
    """What was used of the product, under the account of whoever did."""
    rules = filing.rules
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
