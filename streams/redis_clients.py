"""Redis clients as we need them: of one server or of a cluster, over TLS or not; and when Redis counts as away.

Scripts, commands and keys are the same for all: whatever concerns several keys at once concerns
one hash tag, or is a pipeline, which a cluster's client divides among the nodes.
"""

from functools import cache
from typing import Any

from hiredis import pack_command
from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.exceptions import ClusterError, RedisClusterException, SlotNotCoveredError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, ClusterError, SlotNotCoveredError, TryAgainError, OSError)
"""What a Redis that is away raises, or a cluster without the node that has a key: waited for, never fatal."""


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
    packing = _packing(SSLConnection if url.startswith("rediss:") else Connection)
    if not is_cluster:
        return Redis.from_url(url, connection_class=packing, **options)
    try:
        cluster = Cluster.from_url(url, **options)
    except RedisClusterException as error:  # without host, or with the number of a database
        raise ValueError(str(error)) from error
    cluster.connection_kwargs["connection_class"] = packing  # there is no option for it
    for node in cluster.startup_nodes:
        node.connection_class = packing
    return cluster


@cache
def _packing(base: Any) -> Any:
    """redis-py's connection with hiredis's packer: a third of the cost for a commit's many arguments."""

    class PackingConnection(base):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            if " " in args[0]:  # CLUSTER SLOTS
                args = (*args[0].split(), *args[1:])
            return [pack_command(args)]

    return PackingConnection
