"""Receivers of alerts on this machine, that answer as they are told: the other end of deliveries."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import Message
from typing import Any, NamedTuple

from aiohttp import web
from aiosmtpd.controller import UnthreadedController
from standardwebhooks import Webhook as Verifier

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
_TO_HOOK = """
[[routes]]
name = "all"
to = ["hook"]
[destinations.hook]
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
allow_private = true
"""


def to_hook(url: str) -> str:
    """Settings that route every alert to a receiver, signed with SECRET."""
    return _TO_HOOK.format(url=url, secret=SECRET)


class Request(NamedTuple):
    """What a receiver got, and when."""

    at: float
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Answered(NamedTuple):
    """What a receiver answers."""

    status: int = 200
    headers: dict[str, str] = {}
    after_seconds: float = 0.0


Answers = Callable[[list[Request]], Answered]
"""What to answer to the last of the requests so far."""


def always(status: int = 200) -> Answers:
    """The same answer each time."""
    return lambda _: Answered(status)


def first(*statuses: int, then: int = 200) -> Answers:
    """These answers to the first requests, then another."""

    def answer(requests: list[Request]) -> Answered:
        place = len(requests) - 1
        return Answered(statuses[place] if place < len(statuses) else then)

    return answer


class Receiver:
    """An HTTP server that keeps every request."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.requests: list[Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Keep it, and answer."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(time.time(), headers, await request.read()))
        answer = self.answers(self.requests)
        await asyncio.sleep(answer.after_seconds)
        return web.Response(status=answer.status, headers=answer.headers)

    def verified(self, secret: str = SECRET) -> list[Any]:
        """The bodies, each with a signature that the Standard Webhooks library accepts."""
        return [Verifier(secret).verify(request.body, request.headers) for request in self.requests]

    def by_account(self) -> dict[str, list[str]]:
        """The alert ids in order of arrival, by account; the same again at once counts once."""
        found: dict[str, list[str]] = {}
        for alert in self.verified():
            ids = found.setdefault(alert["account"]["id"], [])
            if not ids or ids[-1] != alert["alertId"]:
                ids.append(alert["alertId"])
        return found


@asynccontextmanager
async def receiving(answers: Answers | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port for the length of a block; it takes everything where nothing else is said."""
    receiver = Receiver(answers or always())
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    receiver.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/"  # type: ignore[attr-defined]
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Postbox:
    """A mail server that keeps what it takes; the first answers may be refusals."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)
        self.refused: list[Message] = []
        self.mails: list[Message] = []
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep it, or refuse it."""
        mail = message_from_bytes(envelope.content)
        if self.refusals:
            self.refused.append(mail)
            return self.refusals.pop(0)
        self.mails.append(mail)
        return "250 OK"


@asynccontextmanager
async def post_office(*refusals: str) -> AsyncIterator[Postbox]:
    """A mail server on a free port for the length of a block."""
    box = Postbox(*refusals)
    loop = asyncio.get_running_loop()
    controller = UnthreadedController(box, hostname="127.0.0.1", port=0, loop=loop)
    controller.server_coro = controller._create_server()
    controller.server = await controller.server_coro
    box.port = controller.server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        controller.server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await controller.server.wait_closed()
