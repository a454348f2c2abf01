"""A Redis Cluster of three real servers on loopback, made by commands alone."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from streams import embedded

NODES = 3
SLOTS = 16384
READY_SECONDS = 20.0


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[list[embedded.Server]]:
    """The nodes of a cluster that has all slots, for the length of a block."""
    nodes = await asyncio.gather(*(_start(folder / f"node-{number}") for number in range(NODES)))
    try:
        await asyncio.to_thread(_join, nodes)
        yield list(nodes)
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def _start(folder: Path) -> embedded.Server:
    bus = embedded.free_port()  # by default it is above the ports that are ours to take
    options = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-port": str(bus)}
    return await embedded.start_redis(folder, options=options)


def _join(nodes: Sequence[embedded.Server]) -> None:
    """Share the slots out, introduce the nodes to each other, and wait until all of them agree."""
    clients = [Redis.from_url(node.address) for node in nodes]
    for number, client in enumerate(clients):
        begin, end = SLOTS * number // NODES, SLOTS * (number + 1) // NODES - 1
        client.execute_command("CLUSTER ADDSLOTSRANGE", begin, end)
    bus = clients[0].config_get("cluster-port")["cluster-port"]
    for client in clients[1:]:
        client.execute_command("CLUSTER MEET", *_place(nodes[0]), bus)
    give_up = time.monotonic() + READY_SECONDS
    while not all(_is_whole(client) for client in clients):
        assert time.monotonic() < give_up, "the cluster did not form"
        time.sleep(0.05)
    for client in clients:
        client.close()


def _place(node: embedded.Server) -> tuple[str, str]:
    host, _, port = node.address.removeprefix("redis://").partition(":")
    return socket.gethostbyname(host), port


def _is_whole(client: "Redis[Any]") -> bool:
    info: Any = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(NODES))


def url_of(nodes: Sequence[embedded.Server]) -> str:
    """The address of the cluster, as settings name it: by one of its nodes."""
    return nodes[0].address.replace("redis://", "redis+cluster://")
