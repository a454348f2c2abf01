"""leash.py PARENT_PID (kernel | PIPE) COMMAND…: become COMMAND, tied to the parent's life.

On Linux the kernel ties it (PR_SET_PDEATHSIG). Elsewhere a watchdog process holds one end
of a pipe whose other end only the parent holds, and kills this process when that closes.
A program of its own, started for each child; it imports nothing of ours.
"""

import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CHECK_SECONDS = 1.0


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, lifeline, *command = sys.argv[1:]
    if lifeline == "kernel":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        _fork_watchdog(int(lifeline))
    if os.getppid() != int(parent):
        sys.exit("the parent ended first")
    os.execvp(command[0], command)


def _fork_watchdog(lifeline: int) -> None:
    """Leave a process behind that kills this one when the pipe closes."""
    watched = os.getpid()
    if os.fork():
        os.close(lifeline)
        return
    os.setsid()
    os.dup2(lifeline, 0)
    os.closerange(1, 1024)  # it must keep none of the child's files (locks, logs) open
    while os.getppid() == watched:
        closed, _, _ = select.select([0], [], [], CHECK_SECONDS)
        if closed and os.getppid() == watched:
            os.kill(watched, signal.SIGKILL)
            break
    os._exit(0)


if __name__ == "__main__":
    main()
