"""Can the servers be reached as the settings say? If not: is a setting wrong, or is a server away?

Clients of both kinds try again for ever, whatever keeps them out. So whoever starts, or fails, asks
here first: a wrong password, authority or protocol is BadInput that names the setting, and
nothing to wait for; anything else is Unavailable.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from msgspec.structs import replace
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError

from models.errors import BadInput, Unavailable
from models.settings import Settings
from streams.config import kafka_options, redis_client, without_password
from streams.redis_clients import REDIS_AWAY

T = TypeVar("T")

AWAY = (*REDIS_AWAY, KafkaError)
"""What a server that is away raises: waited for, never fatal."""
PROBE_SECONDS = 4.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
_WRONG_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

log = logging.getLogger(__name__)


async def reach(settings: Settings) -> None:
    """Return once both servers have answered. Raises BadInput for a wrong setting, Unavailable when one is away."""
    await reach_redis(settings)
    await reach_kafka(settings)


async def check(settings: Settings) -> None:
    """Raise BadInput when a setting keeps us out of Kafka or Redis; servers that are away keep nothing back."""
    for ask in (reach_redis, reach_kafka):
        with contextlib.suppress(Unavailable):
            await ask(settings)


async def until_reached(settings: Settings) -> None:
    """Return once both servers answer. Raises BadInput for a wrong setting."""
    await until_it_works(lambda: reach(settings))


async def until_it_works(step: Callable[[], Awaitable[T]], is_ending: Callable[[], bool] = lambda: False) -> T | None:
    """The result of a step, taken again after longer and longer pauses while Kafka or Redis is away.

    None when all ends before.
    """
    pause, told = FIRST_PAUSE_SECONDS, ""
    while not is_ending():
        try:
            return await step()
        except (Unavailable, *AWAY) as error:
            if (why := str(error)) != told:
                log.warning("waiting: %s", why)
                told = why
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    return None


# --- Kafka ------------------------------------------------------------------------------


async def reach_kafka(settings: Settings) -> None:
    """Return once one of the brokers has let us in."""
    errors: list[BadInput | Unavailable] = []
    for place in kafka_options(settings)["bootstrap_servers"]:
        try:
            return await _reach_broker(settings, *_address(place))
        except (BadInput, Unavailable) as error:
            errors.append(error)
    raise next((error for error in errors if isinstance(error, BadInput)), errors[0])


def _address(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise BadInput("kafka.bootstrap", "host:port, comma separated", place)
    return host.strip("[]"), int(port)


async def _reach_broker(settings: Settings, host: str, port: int) -> None:
    try:
        await _log_in(settings, host, port)
    except (KafkaError, OSError, TimeoutError) as error:
        wrong = _refused(settings, f"{host}:{port}", error) or await _other_protocol(settings, host, port)
        raise wrong or _kafka_away(f"{host}:{port}", error) from error


async def _log_in(settings: Settings, host: str, port: int) -> None:
    connection = await _connected(settings, host, port)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


async def _connected(settings: Settings, host: str, port: int) -> Any:
    """A connection that has agreed on versions, and been authenticated where we mean to be."""
    options = kafka_options(settings)
    options.pop("bootstrap_servers")
    return await create_conn(host, port, request_timeout_ms=int(PROBE_SECONDS * 1000), **options)


def _refused(settings: Settings, place: str, error: Exception) -> BadInput | None:
    """The setting that is wrong, where the error says so by itself."""
    kafka = settings.kafka
    match error:
        case SaslAuthenticationFailed():
            where = "kafka.sasl_username, kafka.sasl_password"
            return BadInput(where, f"a user and password that {place} takes", f"{kafka.sasl_username} ({error})")
        case UnsupportedSaslMechanismError():
            return BadInput("kafka.sasl_mechanism", f"one that {place} offers", kafka.sasl_mechanism)
        case IllegalSaslStateError():
            expected = f"one without SASL, which {place} does not ask for"
            return BadInput("kafka.security_protocol", expected, kafka.security_protocol)
        case ssl.SSLCertVerificationError():
            return _distrusted(error, "kafka.bootstrap", "kafka.ssl_cafile", kafka.ssl_cafile, place)
    return None


async def _other_protocol(settings: Settings, host: str, port: int) -> BadInput | None:
    """Where a broker speaks TLS and we do not, or the other way round."""
    wanted = settings.kafka.security_protocol
    plain = replace(settings, kafka=replace(settings.kafka, security_protocol="PLAINTEXT"))
    if wanted.endswith("SSL"):
        if await _succeeds(_agree(plain, host, port)):
            expected = f"PLAINTEXT or SASL_PLAINTEXT ({host}:{port} speaks no TLS)"
            return BadInput("kafka.security_protocol", expected, wanted)
    elif await _succeeds(_shake_hands(host, port)):
        return BadInput("kafka.security_protocol", f"SSL or SASL_SSL ({host}:{port} speaks TLS)", wanted)
    return None


async def _agree(settings: Settings, host: str, port: int) -> None:
    (await _connected(settings, host, port)).close()


def _kafka_away(place: str, error: Exception) -> Unavailable:
    """What is said of a broker that does not answer, or hangs up: as one does that is stopping, too."""
    hung_up = isinstance(error, KafkaConnectionError)
    hint = " (does it want SASL, or a client certificate? see [kafka] in the settings)" if hung_up else ""
    return Unavailable(f"Kafka at {place}: {str(error) or type(error).__name__}{hint}")


# --- Redis ------------------------------------------------------------------------------


async def reach_redis(settings: Settings) -> None:
    """Return once the Redis that is named has let us in, and is or is no cluster as the settings say."""
    scheme, _, rest = settings.redis.url.partition("://")
    single = replace(settings, redis=replace(settings.redis, url=f"{scheme.partition('+')[0]}://{rest}"))
    shown = without_password(settings.redis.url)
    try:
        is_cluster = await _is_cluster(single)
    except AuthenticationError as error:
        raise BadInput("redis.url", "a user and password that it takes", f"{shown} ({error})") from error
    except REDIS_AWAY as error:
        raise await _redis_keeps_out(settings, shown, error) from error
    if is_cluster is not None and is_cluster != scheme.endswith("+cluster"):
        said = "redis+cluster:// or rediss+cluster://" if is_cluster else "redis:// or rediss://"
        raise BadInput("redis.url", f"{said} (this Redis is {'part of a' if is_cluster else 'no'} cluster)", shown)


async def _is_cluster(settings: Settings) -> bool | None:
    """Whether the Redis is part of a cluster; None when it does not let us know."""
    once = Retry(NoBackoff(), 0)
    limits = {"socket_timeout": PROBE_SECONDS, "socket_connect_timeout": PROBE_SECONDS}
    async with redis_client(settings, retry=once, **limits) as redis:
        await redis.ping()
        with contextlib.suppress(NoPermissionError):
            return bool((await redis.info("cluster"))["cluster_enabled"])
        return None


async def _redis_keeps_out(settings: Settings, shown: str, error: Exception) -> BadInput | Unavailable:
    parts = urlsplit(settings.redis.url)
    address = parts.hostname or "localhost", parts.port or 6379
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _distrusted(
                cause, "redis.url", "redis.ssl_cafile", settings.redis.ssl_cafile, "{}:{}".format(*address)
            )
    if settings.redis.url.startswith("rediss"):
        if await _succeeds(_ping(*address)):
            return BadInput("redis.url", "redis:// (this Redis speaks no TLS)", shown)
    elif await _succeeds(_shake_hands(*address)):
        return BadInput("redis.url", "rediss:// (this Redis speaks TLS)", shown)
    return Unavailable(f"Redis at {shown}: {error}")


async def _ping(host: str, port: int) -> None:
    """Have anything that is a line of Redis's protocol answered to a PING without TLS."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"PING\r\n")
        if (await reader.readline())[:1] not in (b"+", b"-"):
            raise ConnectionError("no Redis")
    finally:
        writer.close()


# --- both -------------------------------------------------------------------------------


def _distrusted(error: ssl.SSLCertVerificationError, address: str, setting: str, file: str, place: str) -> BadInput:
    """The setting that makes a certificate one we cannot trust: the server's name, or the authority."""
    if error.verify_code in _WRONG_NAME:
        return BadInput(address, "a name that the server's certificate is for", f"{place} ({error.verify_message})")
    used = file or "the system's authorities"
    return BadInput(setting, f"the authority that signed {place}'s certificate", f"{used} ({error.verify_message})")


async def _shake_hands(host: str, port: int) -> None:
    """Speak TLS with whoever it is."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=anybody)
    writer.close()


async def _succeeds(attempt: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await attempt
    except (KafkaError, OSError, TimeoutError):
        return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
