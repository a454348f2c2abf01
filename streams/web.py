"""`touchline web`: the collector, the reports, the live page, health and metrics on one port.

/v1/…, /beacon/v1/…, /sourceConfig      streams.collector (bare ASGI, no middleware)
GET /                                   the live page; /static/ its style and script
GET /api/v1/reports, …/reports/…        which reports there are; the rows of `touchline report`, as JSON
GET /api/v1/models                      the attribution models
GET /api/v1/live?models=A,B             server-sent events for the live page
GET /healthz                            200 while Kafka and Redis answer, else 503
GET /metrics                            Prometheus
"""

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from models.catalogue import every_model
from models.errors import BadInput, NotYet, TouchlineError, Unavailable
from models.settings import Settings
from streams import config, logs, versions
from streams.answers import problem, status_of, translated
from streams.api import REPORTS, Report, asked_of, names_in, query_of
from streams.collector import PREFIXES, Collector
from streams.filtered import Background, background
from streams.intake import Intake
from streams.lane_metrics import lane_metrics
from streams.live import Live
from streams.metrics import Metrics
from streams.reaching import check

PAGES = Path(__file__).parent / "pages"
SHUTDOWN_SECONDS = 10
RULES_POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections, so that none sends into one that we just closed."""
HANG_MILLISECONDS = 60_000
"""A peer that acknowledges nothing for so long is cut off by the kernel."""

_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
_PAGE_HEADERS = {
    "content-security-policy": _POLICY + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class LiveQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameter of the live stream: one or two models, separated by a comma."""

    models: str = "first_touch,linear"


class Site:
    """Every route but the collector's; reads Redis only."""

    def __init__(self, settings: Settings, intake: Intake, redis: Redis, live: Live, metrics: Metrics) -> None:
        self._settings = settings
        self._intake = intake
        self._redis = redis
        self._live = live
        self._metrics = metrics
        self._background = Background()

    def follow(self, settings: Settings) -> None:
        """Go on under other rules."""
        self._settings = settings

    def routes(self) -> list[Route | Mount]:
        """All routes."""
        return [
            Route("/", self.page),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/api/v1/live", self.live, methods=["GET"]),
            *(Route(f"/api/v1/{each.path}", self.report(each)) for each in REPORTS),
            Mount("/static", StaticFiles(directory=PAGES)),
        ]

    async def page(self, request: Request) -> Response:
        """GET /: 200."""
        return FileResponse(PAGES / "live.html", headers=_PAGE_HEADERS)

    async def health(self, request: Request) -> Response:
        """GET /healthz: 200 or 503, with what answers."""
        kafka, redis = await asyncio.gather(self._intake.is_ready(), self._redis_answers())
        return _json({"kafka": kafka, "redis": redis}, 200 if kafka and redis else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: 200; what Redis tells is left out while it is away."""
        text = self._metrics.render()
        with suppress(Unavailable), translated():
            text += await lane_metrics(self._redis, self._settings)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def report(self, report: Report) -> Callable[[Request], Awaitable[Response]]:
        """A route that answers a report.

        200; 202 while a scan of many accounts goes on (ask again); 400 bad parameter, 404
        unknown id, 503 Redis away.
        """

        async def answer(request: Request) -> Response:
            background.set(self._background)
            asked = asked_of(request, report.asks)
            with translated():
                return _json(await report.answer(self._redis, self._settings, **request.path_params, **asked))

        return answer

    async def live(self, request: Request) -> Response:
        """GET /api/v1/live: 200 and a stream of events, 400 unknown model, 503 too many pages."""
        models = names_in(query_of(request, LiveQuery).models)
        _check_models(models, self._settings)
        return EventStream(self._live, models)

    async def _redis_answers(self) -> bool:
        try:
            async with asyncio.timeout(2):
                with translated():
                    return bool(await self._redis.ping())
        except (TimeoutError, TouchlineError):
            return False


class EventStream(Response):
    """An answer that goes on for as long as the page is open."""

    def __init__(self, live: Live, models: tuple[str, ...]) -> None:
        super().__init__()
        self._live = live
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events."""
        await self._live.stream(self._models, receive, send)


class Application:
    """The whole application: the collector's paths reach it directly, all others through Starlette."""

    def __init__(self, collector: Collector, site: Site, metrics: Metrics) -> None:
        self._collector = collector
        self._site = Starlette(routes=site.routes(), exception_handlers=_EXPLAINED)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        if scope["path"].startswith(PREFIXES):
            await self._collector(scope, receive, send)
        else:
            await self._site(scope, receive, self._counted(scope, send))

    def _counted(self, scope: Scope, send: Send) -> Send:
        async def count_and_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.count_request(route, message["status"])
            await send(message)

        return count_and_send


class Server(uvicorn.Server):
    """The server of uvicorn, which ends the live streams before it waits for its connections."""

    def __init__(self, settings: uvicorn.Config, live: Live) -> None:
        super().__init__(settings)
        self._live = live

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT; uvicorn itself would raise them again, before we have closed our clients."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the streams, let the other answers finish."""
        self._live.close()
        await super().shutdown(sockets)


def main(settings: Settings) -> None:
    """`touchline web`: serve until a signal comes. Raises BadInput when settings keep it out of Kafka or Redis."""
    asyncio.run(check(settings))
    logs.set_up(settings)
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(serve(settings, on_ready=lambda address: print(f"touchline web: {address}", flush=True)))


async def serve(settings: Settings, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM, SIGINT or cancellation; `on_ready` is told the address, http://host:port.

    Raises BadInput when the settings name no Kafka or Redis, or the port is taken.
    """
    async with _application(settings) as (application, live):
        listener = _listen(settings)
        options = uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        on_ready(_address(listener))
        await _run(Server(options, live), listener)


async def _run(server: Server, listener: socket.socket) -> None:
    """Serve; when cancelled, end as for a signal."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


@asynccontextmanager
async def _application(settings: Settings) -> AsyncIterator[tuple[Application, Live]]:
    metrics = Metrics()
    redis = config.redis_client(settings)
    intake = Intake(settings)
    live = Live(redis, settings)
    metrics.watch("touchline_collector_held_bytes", "Not yet acknowledged by Kafka", lambda: intake.held_bytes)
    metrics.watch("touchline_live_streams", "Live pages open", lambda: live.pages)
    site = Site(settings, intake, redis, live, metrics)
    await intake.start()
    collector = Collector(settings, intake, metrics)
    tasks = [
        asyncio.create_task(live.run()),
        asyncio.create_task(_follow_rules(redis, settings, (site, live, collector))),
    ]
    try:
        yield Application(collector, site, metrics), live
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await intake.stop()
        await redis.aclose()


async def _follow_rules(
    redis: Redis,
    configured: Settings,
    followers: Sequence[Site | Live | Collector],
) -> None:
    """Tell them the rules of the live version whenever these change; while Redis is away the last ones hold."""
    told = configured
    while True:
        try:
            with translated():
                now = await versions.in_force(redis, configured)
        except Unavailable:
            logs.suspect()
            now = told
        if now != told:
            for each in followers:
                each.follow(now)
            told = now
        await asyncio.sleep(RULES_POLL_SECONDS)


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.web.host, settings.web.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, HANG_MILLISECONDS)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadInput("web.host, web.port", f"a free address ({error.strerror})", f"{host}:{port}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _json(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


async def _explain(request: Request, error: Exception) -> Response:
    status = status_of(error) if isinstance(error, TouchlineError) else 500
    message = error if status != 500 else "this is a bug of ours"
    headers = {"retry-after": "2"} if isinstance(error, NotYet) else None
    return Response(problem(status, message), status, headers, media_type="application/json")


async def _explain_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    words = {404: f"nothing is at {path}", 405: f"{path} takes GET alone"}.get(error.status_code, error.detail)
    return Response(problem(error.status_code, words), error.status_code, error.headers, "application/json")


_EXPLAINED = {TouchlineError: _explain, HTTPException: _explain_http, Exception: _explain}


def _check_models(models: tuple[str, ...], settings: Settings) -> None:
    """BadInput when a model is unknown or there are more than a page shows."""
    if not 1 <= len(models) <= 2:
        raise BadInput("models", "one or two models", ",".join(models))
    known = every_model(settings)
    for model in models:
        if model not in known:
            raise BadInput("models", f"one of {', '.join(known)}", model)
