"""The supervisor with dummy programs, in a process of its own so that it can be killed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from concord_local import processes
from concord_local.state import State

PRELUDE = """
import asyncio, json, os, signal, sys
from pathlib import Path
from concord_local.processes import Program, Supervisor
from concord_local.state import State
from concord_local.supervise import end_left_behind
state = State(Path(sys.argv[1]))
state.make()
end_left_behind(state)
async def at_once(_pid): return True
async def never(_pid): return False
def shell(name, script, ready=at_once, **more):
    return Program(name, lambda: ["/bin/sh", "-c", script], ready, {"PATH": os.environ["PATH"]}, **more)
async def main(stages):
    supervisor = Supervisor(stages, state, lambda told: print(json.dumps(told), flush=True))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stop)
    return await supervisor.run()
"""


@pytest.fixture
def supervise(state):
    """Runs a supervisor with the stages given as code; returns its process."""
    running = []

    def run(stages, settings=""):
        code = f"{PRELUDE}\n{textwrap.dedent(settings)}\nsys.exit(0 if asyncio.run(main({stages})) else 1)"
        process = subprocess.Popen([sys.executable, "-c", code, str(state.folder)], stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def told_until(process, key):
    for line in process.stdout:
        told = json.loads(line)
        if key in told:
            return told[key]
    raise AssertionError(f"it ended without saying {key}")


def row(state, name):
    return next(row for row in state.status()["programs"] if row["name"] == name)


def test_a_program_that_dies_comes_back_ever_more_slowly(supervise, state, eventually):
    script = "date +%s.%N >> $0.times; sleep 0.05; exit 7"
    process = supervise(
        f"[[shell('steady', 'exec sleep 60'), Program('weak', lambda: ['/bin/sh', '-c', '{script}', 'weak'], at_once)]]"
    )
    told_until(process, "ready")
    times = state.run_folder("weak") / "weak.times"
    eventually(lambda: times.exists() and len(times.read_text().split()) >= 5)
    starts = [float(line) for line in times.read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[0] < 0.6
    assert pauses[3] > 1.0
    weak = row(state, "weak")
    assert weak["restarts"] >= 4
    assert weak["exit_status"] == 7
    assert row(state, "steady")["restarts"] == 0


def test_a_killed_supervisor_leaves_nothing(supervise, left, eventually):
    process = supervise("[[shell('one', 'exec sleep 60'), shell('two', 'exec sleep 60')]]")
    told_until(process, "ready")
    assert len(left()) == 2
    process.kill()
    eventually(lambda: not left())


def test_what_outlives_a_killed_supervisor_is_ended_by_the_next(supervise, left, eventually):
    process = supervise("[[shell('stubborn', 'trap \"\" TERM; while :; do sleep 1; done')]]")
    told_until(process, "ready")
    process.kill()
    process.wait()
    stubborn = left()
    assert stubborn, "the dummy ignores the signal; else this test shows nothing"
    following = supervise("[[shell('other', 'exec sleep 60')]]")
    told_until(following, "ready")
    assert not set(stubborn) & set(left())


def test_what_a_program_started_itself_ends_with_it(supervise, state, left, eventually):
    process = supervise("[[shell('parent', 'sleep 60 & sleep 0.3')]]")
    told_until(process, "ready")
    first = eventually(lambda: left() if len(left()) >= 2 else None)
    eventually(lambda: not set(first) & set(left()))
    assert state.is_running() is False  # this supervisor took no lock: that is supervise.py's work


def test_stages_start_in_order_and_stop_in_reverse(supervise, state, folder, eventually):
    order = folder / "order"
    script = f"echo up $0 >> {order}; trap 'echo down $0 >> {order}; exit 0' TERM; while :; do sleep 0.05; done"
    stages = "[" + ", ".join(
        f'[Program("{name}", lambda: ["/bin/sh", "-c", {script!r}, "{name}"], at_once)]' for name in ("first", "second")
    ) + "]"  # fmt: skip
    process = supervise(stages)
    told_until(process, "ready")
    eventually(lambda: order.exists() and len(order.read_text().splitlines()) == 2)
    process.terminate()
    assert process.wait(20) == 0
    assert order.read_text().splitlines() == ["up first", "up second", "down second", "down first"]
    assert {child["state"] for child in state.status()["programs"]} == {"stopped"}


def test_a_step_that_fails_fails_the_start_with_its_last_words(supervise, left):
    step = "shell('step', 'echo no table here; exit 4', None, once=True)"
    process = supervise(f"[[shell('base', 'exec sleep 60')], [{step}], [shell('late', 'sleep 9')]]")
    why = told_until(process, "failed")
    assert why.startswith("step ended with 4 before it was ready: no table here")
    assert process.wait(20) == 1
    assert not left()


def test_a_step_that_succeeds_lets_the_next_stage_begin(supervise, state):
    process = supervise("[[shell('step', 'exit 0', None, once=True)], [shell('service', 'exec sleep 60')]]")
    told_until(process, "ready")
    assert row(state, "step")["state"] == "done"
    assert row(state, "service")["state"] == "ready"


def test_a_program_that_dies_thrice_before_it_is_ready_fails_the_start(supervise):
    process = supervise("[[shell('broken', 'echo CONCORD_X is wrong >&2; exit 2', never)]]")
    assert "broken ended with 2 before it was ready: CONCORD_X is wrong" in told_until(process, "failed")


def test_a_program_that_never_serves_fails_the_start(supervise):
    brief = "from concord_local import processes\nprocesses.READY_SECONDS_MAX = 0.5"
    process = supervise("[[shell('mute', 'exec sleep 60', never)]]", brief)
    assert told_until(process, "failed").startswith("mute is not ready after")
    assert process.wait(20) == 1


def test_a_command_that_is_not_there_fails_the_start(supervise):
    process = supervise("[[Program('absent', lambda: ['/nowhere/absent'], at_once)]]")
    assert "absent cannot start" in told_until(process, "failed")


def test_a_stop_in_the_middle_of_the_start_stops(supervise, left, eventually):
    process = supervise("[[shell('slow', 'exec sleep 60', never)]]")
    eventually(left)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not left()


def test_a_program_that_ignores_the_stop_signal_is_killed(supervise, left):
    stubborn = "[[shell('stubborn', 'trap \"\" TERM; while :; do sleep 1; done')]]"
    process = supervise(stubborn, "from concord_local import processes\nprocesses.STOP_SECONDS_MAX = 0.3")
    told_until(process, "ready")
    process.terminate()
    assert process.wait(20) == 0
    assert not left()


def test_a_program_that_stops_serving_is_shown_so(supervise, state, eventually):
    setting = "async def while_there(_pid): return Path(state.folder / 'serves').exists()"
    (state.folder / "serves").touch()
    process = supervise("[[shell('service', 'exec sleep 60', while_there)]]", setting)
    told_until(process, "ready")
    (state.folder / "serves").unlink()
    eventually(lambda: row(state, "service")["state"] == "not serving")
    (state.folder / "serves").touch()
    eventually(lambda: row(state, "service")["state"] == "ready")


def test_a_long_log_is_cut_and_one_older_piece_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LOG_BYTES_MAX", 100)
    log = tmp_path / "service.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 101)
        processes._shorten(log)
        writer.write(b"next\n")
    assert log.read_text() == "next\n"
    assert (tmp_path / "service.old.log").read_text() == "x" * 101


def test_status_is_never_half_written(tmp_path):
    state = State(tmp_path)
    state.write_status({"phase": "ready", "programs": []})
    assert state.status()["phase"] == "ready"
    assert [path.name for path in Path(tmp_path).iterdir()] == ["status.json"]
    assert os.stat(tmp_path / "status.json").st_mode & 0o077 == 0
