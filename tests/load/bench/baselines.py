"""Figures that need no platform: the machine, and the outbox relay beside a bare publisher."""

from bench.figures import Report
from bench.machine import EVENT_PAYLOAD_BYTES, EVENT_TYPE, Machine, relayed_per_second
from bench.processes import Loads

ROUNDS = 3
PGBENCH_SECONDS = 2
EVENTS = 4_000
DURABLE = "each message flushed"
RELAY_GOAL = 0.4
SECTION, RELAY_SECTION = "machine", "outbox relay / bare JetStream publish"


async def measure_machine(report: Report, machine: Machine, scale: float) -> None:
    """Flushes and PostgreSQL transactions."""
    await machine.prepare_pgbench()
    flushes, transactions = [], []
    for _ in range(ROUNDS):
        flushes.append(machine.flushes_per_second())
        transactions.append(machine.transactions_per_second(max(1, round(PGBENCH_SECONDS * scale))))
    report.add(SECTION, "fdatasync of 8 KiB", flushes, "/s")
    report.add(SECTION, "pgbench TPC-B, 8 clients", transactions, "tx/s", note="PostgreSQL of the wheel, fsync on")


async def measure_relay(report: Report, machine: Machine, loads: Loads, scale: float) -> None:
    """Such messages by a bare publisher and by the relay, in turn; on a bus as durable as the platform's, and a faster one."""
    count = max(500, round(EVENTS * scale))
    for bus in machine.buses:
        bare, relayed = [], []
        async with machine.echo(bus) as echo:
            await relayed_per_second(echo, 500)  # warm
            order = {"kind": "publish", "url": echo.nats_url, "subject": EVENT_TYPE, "count": count}
            order["payload_bytes"] = EVENT_PAYLOAD_BYTES
            for _ in range(ROUNDS):
                bare.append((await loads.run(order))["per_second"])
                relayed.append(await relayed_per_second(echo, count))
        ratios = [ours / theirs for ours, theirs in zip(relayed, bare, strict=True)]
        report.add(SECTION, f"JetStream publish, 256 in flight, {bus}", bare, "messages/s", note="with Nats-Msg-Id")
        report.add(RELAY_SECTION, f"relay, {bus}", relayed, "events/s")
        report.add(RELAY_SECTION, f"ratio, {bus}", ratios, goal=RELAY_GOAL)
