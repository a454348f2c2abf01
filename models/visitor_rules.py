"""What visitors are decided by: the rules, and what is asked of them most."""

from models.rules import Rules


class VisitorRules:
    """The rules, with what is asked of them at nearly every hit; spans in microseconds."""

    __slots__ = ("gap", "is_hot", "lookback", "longest", "markov_order", "persons_per_visitor", "whole")

    def __init__(self, rules: Rules) -> None:
        self.whole = rules
        self.gap = rules.gap
        self.longest = rules.longest
        self.is_hot = rules.is_hot
        self.lookback = rules.lookback["lead"]
        self.markov_order = rules.settings.markov_order
        self.persons_per_visitor = rules.settings.identity.persons_per_visitor
