"""Money: integer minor units of an ISO 4217 currency, converted at dated rates."""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, localcontext

from models.errors import BadInput
from models.rates import Rate
from models.times import is_day

# Source: ISO 4217, list one (active codes), by number of decimals.
_TWO = """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF
CHE CHF CHW CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ
GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD
MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD
RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL"""
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
DECIMALS: dict[str, int] = {
    code: decimals for decimals, codes in ((2, _TWO), (0, _NONE), (3, _THREE), (4, _FOUR)) for code in codes.split()
}

_MOST_DIGITS = 15
_PLAIN = re.compile(r'"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*"')
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def parse_currency(text: str, where: str) -> str:
    """The ISO 4217 code in capitals; BadInput when there is no such currency."""
    code = text.strip().upper()
    if code not in DECIMALS:
        raise BadInput(where, "an ISO 4217 currency code", text)
    return code


def parse_amount(value: bytes, where: str) -> Decimal:
    """The exact decimal in a JSON number or a string such as "12.50"; BadInput when there is none."""
    text = value.decode(errors="replace")
    plain = _PLAIN.fullmatch(text)
    if plain is None and not _NUMBER.fullmatch(text):
        raise BadInput(where, 'an amount such as 12.5 or "12.50"', text)
    return Decimal(plain[1] if plain else text)


def to_minor(amount: Decimal, currency: str, where: str) -> int:
    """Minor units of an exact decimal, rounded half up; BadInput if not finite or absurd."""
    if not amount.is_finite() or amount.adjusted() >= _MOST_DIGITS:
        raise BadInput(where, f"a finite amount of at most {_MOST_DIGITS} digits", str(amount))
    with localcontext(prec=60):
        scaled = amount.scaleb(DECIMALS[currency])
        return int(scaled.quantize(Decimal(1), rounding=ROUND_HALF_UP))


class Rates:
    """The operator's dated rates into the reporting currency."""

    def __init__(self, reporting: str, rates: Iterable[Rate]) -> None:
        self.reporting = reporting
        self._by_currency: dict[str, list[tuple[str, Decimal]]] = {}
        for rate in rates:
            if rate.target == reporting:
                self._by_currency.setdefault(rate.source, []).append((rate.date, _factor(rate)))
        for dated in self._by_currency.values():
            dated.sort()

    def on(self, currency: str, day: str) -> Decimal | None:
        """The rate of the greatest date ≤ `day`; None when there is none yet."""
        if currency == self.reporting:
            return Decimal(1)
        past = [factor for date, factor in self._by_currency.get(currency, ()) if date <= day]
        return past[-1] if past else None

    def convert(self, amount: int, currency: str, day: str) -> int | None:
        """Minor units in the reporting currency, rounded half up once; None without a rate."""
        if currency == self.reporting:
            return amount
        factor = self.on(currency, day)
        if factor is None:
            return None
        with localcontext(prec=60):
            exact = Decimal(amount).scaleb(DECIMALS[self.reporting] - DECIMALS[currency]) * factor
            return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def check_rates(reporting: str, rates: Iterable[Rate]) -> None:
    """BadInput when the reporting currency is none, or names the first rate that can never be used."""
    _check_code(reporting, "currency")
    for rate in rates:
        where = f"rates {rate.date} {rate.source}"
        if not is_day(rate.date):
            raise BadInput(where, "a day such as 2026-04-01", rate.date)
        _check_code(rate.source, where)
        _check_code(rate.target, where)
        _factor(rate)


def _check_code(code: str, where: str) -> None:
    if code not in DECIMALS:
        raise BadInput(where, "an ISO 4217 currency code in capitals", code)


def _factor(rate: Rate) -> Decimal:
    where = f"rates {rate.date} {rate.source}"
    try:
        factor = Decimal(rate.rate)
    except ArithmeticError:
        raise BadInput(where, "a decimal rate above 0", rate.rate) from None
    if not factor.is_finite() or factor <= 0:
        raise BadInput(where, "a decimal rate above 0", rate.rate)
    return factor
