"""Redis clients as we need them: of one server or of a cluster, over TLS or not; and when Redis counts as away.

Scripts, commands and keys are the same for all: whatever concerns several keys at once concerns
one hash tag, or is a pipeline, which a cluster's client divides among the nodes.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from hiredis import pack_command
from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.exceptions import ClusterError, RedisClusterException, SlotNotCoveredError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, ClusterError, SlotNotCoveredError, TryAgainError, OSError)
"""What a Redis that is away raises, or a cluster without the node that has a key: waited for, never fatal."""

_T = TypeVar("_T")


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The values in lists of at most `size`."""
    rest = list(values)
    for begin in range(0, len(rest), size):
        yield rest[begin : begin + size]


class Arguments:
    """The last and many arguments of a command, packed as they come: while they are in the processor's cache."""

    __slots__ = ("count", "packed")

    def __init__(self) -> None:
        self.count = 0
        self.packed = bytearray()

    def add(self, arguments: tuple[Any, ...]) -> None:
        """Add arguments, most of them short."""
        packed = pack_command(arguments)
        self.packed += packed[packed.index(b"$") :]
        self.count += len(arguments)

    def add_long(self, name: bytes, value: bytes) -> None:
        """Add a name and a long value: on each byte of these hiredis's packer spends a nanosecond."""
        self.packed += b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(value), value)
        self.count += 2

    def extend(self, others: "Arguments") -> None:
        """Add all the others."""
        self.packed += others.packed
        self.count += others.count


class Packing:
    """A connection with hiredis's packer: a third of the cost; and that sends `Arguments` as they are packed."""

    def pack_command(self, *args: Any) -> list[Any]:
        """The command as it is sent, in pieces."""
        if " " in args[0]:  # CLUSTER SLOTS
            args = (*args[0].split(), *args[1:])
        *others, last = args
        if isinstance(last, Arguments):
            _, first, rest = pack_command(tuple(others)).partition(b"$")
            return [b"*%d\r\n%b%b" % (len(others) + last.count, first, rest), last.packed]
        return [pack_command(args)]


class OneOfMany:
    """A connection that may be closed by other tasks: when a node is away the cluster's client closes all."""

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send a command; ConnectionError when another task has closed the connection meanwhile."""
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]
        except (AttributeError, RuntimeError) as error:  # no writer any more; with uvloop, one that is closed
            raise RedisConnectionError("the connection was closed meanwhile") from error


class PlainConnection(Packing, Connection):
    """A connection to one Redis."""


class TlsConnection(Packing, SSLConnection):
    """A connection to one Redis over TLS."""


class PlainNodeConnection(OneOfMany, PlainConnection):
    """A connection to a node of a cluster."""


class TlsNodeConnection(OneOfMany, TlsConnection):
    """A connection to a node of a cluster over TLS."""


class Cluster(RedisCluster):
    """A cluster's client; one that finds no node, or not all slots, finds it away."""

    async def initialize(self, *args: Any, **options: Any) -> RedisCluster:
        """Ask the nodes who has which slots."""
        try:
            return await super().initialize(*args, **options)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error


def client(url: str, *, is_cluster: bool, **options: Any) -> Any:
    """The client for a URL (redis://, rediss://); ValueError when it is none."""
    is_tls = url.startswith("rediss:")
    if not is_cluster:
        single = Redis.from_url(url, **options)
        # Of rediss:// the option for it is overruled.
        single.connection_pool.connection_class = TlsConnection if is_tls else PlainConnection
        return single
    try:
        cluster = Cluster.from_url(url, **options)
    except RedisClusterException as error:  # without host, or with the number of a database
        raise ValueError(str(error)) from error
    connection_class = TlsNodeConnection if is_tls else PlainNodeConnection
    cluster.connection_kwargs["connection_class"] = connection_class  # there is no option for it
    for node in cluster.startup_nodes:
        node.connection_class = connection_class
    return cluster
