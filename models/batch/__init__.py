"""The books in one plain batch: a module for each step of `models.recompute`.

    facts that stand ▶ who is whose ▶ touches ▶ accounts ▶ journeys ▶ what is booked

Nothing here knows how the lanes keep, move and restate their state: what both share are
the reading of facts and the pure functions about sessions, links, deals and credits.
"""
