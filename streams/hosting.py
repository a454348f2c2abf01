"""How a Faust app runs in a process of ours."""

import asyncio

import faust
import uvloop


def run(app: faust.App) -> None:
    """Run the app until it is told to stop (SIGINT, SIGTERM), on uvloop; it logs as streams.logs has it."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    worker = faust.Worker(app, override_logging=False, quiet=True)
    worker.spinner = None
    worker.execute_from_commandline()
