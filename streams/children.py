"""Children that never outlive us: servers and roles we start end when we do, kill -9 included.

start ─▶ python leash.py ─ ties itself to us ─ exec ─▶ the command, under the same pid
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO

from models.errors import Unavailable

LEASH = Path(__file__).with_name("leash.py")
MAX_LOG_BYTES = 10 * 1024 * 1024

# The kernel ties a child to the *thread* that started it, so one thread that lives as
# long as the process starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leash")


class Child:
    """A running process that writes to `log`; a server answers at `address`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path | None, address: str) -> None:
        self.name = name
        self.log = log
        self.address = address
        self._process = process

    @property
    def pid(self) -> int:
        """The process id of the command itself."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    async def exited(self) -> int:
        """Wait until it has ended; its exit code."""
        while (code := self.exit_code) is None:
            await asyncio.sleep(0.05)
        return code

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after the grace; returns once it is gone. Repeatable."""
        if self.exit_code is None:
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited(), grace_seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns once it is gone. Repeatable."""
        self._process.kill()
        self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines it wrote."""
        written = self.log.read_text(errors="replace") if self.log else ""
        return "\n".join(written.splitlines()[-lines:])


def start(
    name: str,
    command: Sequence[str],
    log: Path | None,
    *,
    address: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_open: Sequence[int] = (),
    watchdog: bool = False,
) -> Child:
    """Start a command that ends with us; it appends to `log` (None: writes where we do) and keeps the given files open.

    It gets no terminal signals (a session of its own): Ctrl-C is for us to pass on.
    `watchdog` asks for the portable way where the kernel could do it.
    """
    lifeline = _lifeline() if watchdog or not sys.platform.startswith("linux") else None
    leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(lifeline or "kernel")]

    def launch() -> subprocess.Popen[bytes]:
        with _appending(log) as output:
            return subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                pass_fds=[*keep_open, *([lifeline] if lifeline else [])],
                start_new_session=True,
            )

    return Child(name, _starter.submit(launch).result(), log, address)


@contextlib.contextmanager
def _appending(log: Path | None) -> Iterator[IO[bytes] | None]:
    """The log to append to, a new one when it has grown too long; None: our own output."""
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        yield output


async def ready(child: Child, probe: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Return once the probe says yes.

    Raises Unavailable, with the child's last words, when it ended or took longer than `seconds`.
    """
    give_up = time.monotonic() + seconds
    while child.exit_code is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            if await asyncio.wait_for(probe(), 5.0):
                return
        await asyncio.sleep(0.05)
    code = child.exit_code
    why = f"was not ready after {seconds:.0f} s" if code is None else f"ended with exit code {code}"
    raise Unavailable(f"{child.name} {why}; {child.log} ends with:\n{child.log_tail()}")


@cache
def _lifeline() -> int:
    """The end of a pipe that closes for its readers only when this process ends."""
    reading, _writing = os.pipe()
    return reading
