"""The supervisor's process: `python -m concord_local.supervise FD`; tells how the start goes in JSON lines on descriptor FD."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

from concord_local import state as states
from concord_local import system
from concord_local.processes import Supervisor
from concord_local.stack import Stack


def main() -> None:
    """Runs the platform until SIGTERM or SIGINT; exit status 1 when it could not start."""
    descriptor = int(sys.argv[1])

    def announce(told: dict[str, Any]) -> None:
        try:
            os.write(descriptor, json.dumps(told).encode() + b"\n")
        except OSError:  # `concord up` went away; the platform runs on
            return

    state = states.State(states.directory())
    state.make()
    held = system.lock(state.lock_path)
    if held is None:
        announce({"running": True})
        sys.exit(0)
    try:
        os.umask(0o077)
        end_left_behind(state)
        stack = Stack(state)
        stack.refuse_impossible()
        stack.load(anew=True).write_files()
        started = asyncio.run(_run(stack, announce))
        if stack.postgres:
            stack.postgres.clear_left_behind()
    except (system.Trouble, OSError) as why:
        announce({"failed": str(why)})
        sys.exit(1)
    sys.exit(0 if started else 1)


def end_left_behind(state: states.State) -> None:
    """Ends programs that outlived a killed supervisor. They are known by the folder they work in."""
    for folder in (state.folder / "run").iterdir():
        system.end_all_working_in(folder)


async def _run(stack: Stack, announce: Any) -> bool:
    supervisor = Supervisor(stack.stages(), stack.state, announce)
    for asked in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(asked, supervisor.stop)
    return await supervisor.run()


if __name__ == "__main__":
    main()
