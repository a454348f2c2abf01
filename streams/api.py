"""The reports over HTTP: which parameters each takes, and the function that answers.

GET /api/v1/reports/<report>?…      the rows or document of `touchline report …`, as JSON
GET /api/v1/reports                 which reports there are, with their parameters
GET /api/v1/models                  those of `touchline models`
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request

from models.catalogue import described
from models.errors import BadInput, misfit
from models.filters import parse_where
from models.settings import Settings
from streams import outlook, pipeline, refusals, reports, side_by_side

Q = TypeVar("Q", bound=msgspec.Struct)


class Filtered(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"since": "from", "until": "to"}
):
    """What every report on totals takes: of which accounts."""

    where: tuple[str, ...] = ()


class DayQuery(Filtered, frozen=True, kw_only=True):
    """The parameters of reports for a day."""

    day: str | None = None


class InPeriods(Filtered, frozen=True, kw_only=True):
    """Apart by which periods, between which days, both included."""

    grain: str = "total"
    since: str | None = None
    until: str | None = None


class SourcedQuery(InPeriods, frozen=True, kw_only=True):
    """The parameters of `sourced`: which credits are added up."""

    by: str = "team"
    conversion: str = "won"


class CreditsQuery(SourcedQuery, frozen=True, kw_only=True):
    """The parameters of `credits`: as of `sourced`, under a model."""

    model: str
    by: str


class CompareQuery(SourcedQuery, frozen=True, kw_only=True, rename={"versions": "settings"}):
    """The parameters of `compare`: as of `sourced`, under several models, or two versions of the `settings`."""

    models: str
    by: str
    versions: str | None = None


class PipelineQuery(DayQuery, frozen=True, kw_only=True):
    """The parameters of `pipeline`."""

    by: str = "stage"
    model: str = "first_touch"


class ForecastQuery(DayQuery, frozen=True, kw_only=True):
    """The parameters of `forecast`."""

    grain: str = "month"
    periods: int | None = None


class BacktestQuery(Filtered, frozen=True, kw_only=True):
    """The parameters of the back-test; the months of `from` and `to` are both included."""

    ahead: int = 1
    since: str | None = None
    until: str | None = None


class VelocityQuery(InPeriods, frozen=True, kw_only=True):
    """The parameters of `velocity`."""

    by: str = "total"
    day: str | None = None


class FunnelQuery(InPeriods, frozen=True, kw_only=True):
    """The parameters of `funnel`."""

    model: str = "linear"
    conversion: str = "won"
    day: str | None = None


class AlertsQuery(Filtered, frozen=True, kw_only=True):
    """The parameters of `alerts`."""

    limit: int = 50


class WarmthQuery(AlertsQuery, frozen=True, kw_only=True):
    """The parameters of `warmth`: as of `alerts`, in which state."""

    state: str | None = None


class LimitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most so many."""

    limit: int = refusals.MOST


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route without parameters."""


class Report(NamedTuple):
    """A route below /api/v1/: its parameters, and what answers (redis, settings, **parameters)."""

    path: str
    asks: type[msgspec.Struct]
    answer: Callable[..., Awaitable[Any]]


async def compare(redis: Any, settings: Settings, *, models: str, **asked: Any) -> Any:
    """Several models side by side, or the same under two versions of the settings."""
    versions = asked.pop("versions")
    if not versions:
        return await reports.compare(redis, settings, models=names_in(models), **asked)
    names, wanted = names_in(versions), names_in(models)
    return await side_by_side.compare(redis, settings, names=names, models=wanted, **asked)


async def list_models(redis: Any, settings: Settings) -> Any:
    """Every model, in words."""
    return [each._asdict() for each in described(settings)]


async def list_reports(redis: Any, settings: Settings) -> Any:
    """Rows {path, parameters} of all there is to ask for."""
    return [
        {"path": f"/api/v1/{each.path.replace(':path', '')}", "parameters": _parameters(each.asks)} for each in REPORTS
    ]


def _parameters(shape: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(shape)]


REPORTS = (
    Report("models", NoQuery, list_models),
    Report("reports", NoQuery, list_reports),
    Report("reports/credits", CreditsQuery, reports.credits),
    Report("reports/compare", CompareQuery, compare),
    Report("reports/sourced", SourcedQuery, reports.sourced),
    Report("reports/deal/{id:path}", NoQuery, reports.deal),
    Report("reports/journey/{account:path}", NoQuery, reports.journey),
    Report("reports/account/{id:path}", NoQuery, reports.account),
    Report("reports/person/{id:path}", NoQuery, reports.person),
    Report("reports/pipeline", PipelineQuery, pipeline.pipeline),
    Report("reports/forecast", ForecastQuery, outlook.forecast),
    Report("reports/forecast/chances", DayQuery, outlook.chances),
    Report("reports/forecast/lead-quality", DayQuery, outlook.lead_quality),
    Report("reports/forecast/backtest", BacktestQuery, outlook.backtest),
    Report("reports/velocity", VelocityQuery, pipeline.velocity),
    Report("reports/funnel", FunnelQuery, pipeline.funnel),
    Report("reports/warmth", WarmthQuery, reports.warmth),
    Report("reports/warmth/{id:path}", NoQuery, reports.warmth_of),
    Report("reports/alerts", AlertsQuery, reports.alerts),
    Report("reports/attributes", NoQuery, reports.attributes),
    Report("reports/usage", NoQuery, reports.usage),
    Report("reports/shared", NoQuery, reports.shared),
    Report("reports/waiting", NoQuery, reports.waiting),
    Report("reports/lanes", NoQuery, reports.lanes),
    Report("reports/dead-letters", LimitQuery, refusals.dead_letters),
)


def query_of(request: Request, shape: type[Q]) -> Q:
    """The query as a record; BadInput names the parameter that is missing, unknown or wrong."""
    given: dict[str, Any] = {name: value for name, value in request.query_params.items() if value}
    for name in given.keys() - {"where"}:
        if len(values := request.query_params.getlist(name)) > 1:
            raise BadInput(name, "one value", ", ".join(values))
    known = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for name, value in given.items():
        if name not in known:
            raise BadInput(name, f"one of the parameters {', '.join(known) or '(none)'}", value)
    for name, field in known.items():
        if field.required and name not in given:
            raise BadInput(name, "a value", "nothing")
    if "where" in given:
        given["where"] = tuple(filter(None, request.query_params.getlist("where")))
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        wrong = misfit(error)
        raise BadInput(wrong.where, wrong.expected, given.get(wrong.where, wrong.got)) from error


def asked_of(request: Request, shape: type[Q]) -> dict[str, Any]:
    """The parameters as the report takes them; those of BadInput as of `query_of`."""
    asked = msgspec.structs.asdict(query_of(request, shape))
    if "where" in asked:
        asked["where"] = parse_where(asked["where"])
    return asked


def names_in(text: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
