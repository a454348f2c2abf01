"""Money: minor units by currency, rates by date."""

from decimal import Decimal

import pytest

from models.errors import BadInput
from models.money import Rates, parse_currency, to_minor
from models.rates import Rate


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("1.005", "USD", 101), ("1.004", "USD", 100), ("10.5", "JPY", 11), ("1.2345", "KWD", 1235), ("0", "EUR", 0)],
)
def test_an_amount_is_rounded_half_up_to_its_currencys_own_units(amount: str, currency: str, minor: int) -> None:
    assert to_minor(Decimal(amount), currency, "amount") == minor


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1e15"])
def test_an_absurd_amount_is_refused_by_name(amount: str) -> None:
    with pytest.raises(BadInput, match="deal-changes.amount"):
        to_minor(Decimal(amount), "USD", "deal-changes.amount")


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(BadInput, match="XYZ"):
        parse_currency("XYZ", "currency")


RATES = Rates(
    "USD",
    [
        Rate("2026-01-01", "EUR", "USD", "1.10"),
        Rate("2026-02-01", "EUR", "USD", "1.20"),
        Rate("2026-01-01", "JPY", "USD", "0.0067"),
    ],
)


def test_the_rate_of_the_greatest_date_up_to_the_day_is_used() -> None:
    assert RATES.convert(10_000, "EUR", "2026-01-31") == 11_000
    assert RATES.convert(10_000, "EUR", "2026-02-01") == 12_000


def test_currencies_of_other_decimals_convert_exactly() -> None:
    assert RATES.convert(1_000, "JPY", "2026-03-01") == 670


def test_nothing_is_worth_zero_for_want_of_a_rate() -> None:
    assert RATES.convert(10_000, "EUR", "2025-12-31") is None
    assert RATES.convert(10_000, "GBP", "2026-03-01") is None
