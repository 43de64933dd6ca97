"""Figures of the customer master's intake: beside a bare transaction, and against many people."""

import json
import secrets
import uuid

from bench.figures import Report
from bench.machine import Machine
from bench.processes import Helper
from chassis import identity
from concord_local import system

ROUNDS, GATHERED = 8, 4_000
LOOK_UPS = 1_500
FEW, MANY = 10_000, 50_000
"""People; many times BENCH_SCALE: 20 for a million."""
UNARY_GOAL, GATHERED_GOAL = 0.5, 5.0
RESOLVE_P99_MS_MAX, RESOLVE_GROWTH_MAX = 5.0, 2.0


async def told(machine: Machine) -> dict[str, str]:
    """What a customer master of its own is told: empty databases, keys, a bus."""
    databases = {name: f"bench_{name}_{uuid.uuid4().hex}" for name in ("customer", "keys")}
    for database in databases.values():
        await machine.execute(f"CREATE DATABASE {database}")
    private, public = identity.generate_key("customer")
    return {
        "CONCORD_DATABASE_URL": machine.postgres.url(databases["customer"]),
        "CONCORD_CUSTOMER_KEYS_URL": machine.postgres.url(databases["keys"]),
        "CONCORD_CUSTOMER_INDEX_KEY": secrets.token_hex(32),
        "CONCORD_CUSTOMER_ROOT_KEY": secrets.token_hex(32),
        "CONCORD_NATS_URL": next(iter(machine.buses.values())).url(),
        "CONCORD_GRPC_LISTEN": f"{system.LOOPBACK}:0",
        "CONCORD_METRICS_LISTEN": f"{system.LOOPBACK}:0",
        "CONCORD_IDENTITY_KEYS": json.dumps({"keys": [public]}),
        "CONCORD_IDENTITY_PRIVATE_KEY": json.dumps(private),
    }


async def measure(report: Report, machine: Machine, scale: float) -> None:
    """The single ingest and the gathered one; resolving among few people and among many."""
    async with Helper("intake_service", await told(machine)) as service:
        order = {"kind": "unary", "rounds": max(3, round(ROUNDS * min(scale, 1))), "gathered": round(GATHERED * min(scale, 1))}
        answer = await service.ask(order)
        section = "ingest / a bare transaction of the same rows"
        report.add(section, "bare transaction", [1 / took for took in answer["bare"]], "/s", note="a statement for each table")
        report.add(section, "ingest transaction, one after another", [1 / took for took in answer["transactions"]], "/s")
        ratios = [bare / ours for bare, ours in zip(answer["bare"], answer["transactions"], strict=True)]
        report.add(section, "ratio", ratios, goal=UNARY_GOAL, note="matching, sealing, golden values and events are in it")
        report.add(section, "IngestRecord, one after another", [1 / took for took in answer["calls"]], "/s")
        gathered = answer["gathered_per_second"]
        report.add(section, "IngestRecord, 200 at once", [gathered], "/s")
        report.add(section, "gathered / one after another", [gathered * took for took in answer["calls"]], goal=GATHERED_GOAL)
        section, means = "resolve among known people, inside the service", []
        for people in sorted({FEW, max(FEW, round(MANY * scale))}):
            answer = await service.ask({"kind": "resolve", "people": people, "count": LOOK_UPS})
            note = f"p50 {answer['p50_ms']:.2f} ms, CPU {answer['cpu_ms']:.2f} ms"
            goal = {"goal": RESOLVE_P99_MS_MAX, "at_most": True}
            report.add(section, f"p99 among {people:,}", [answer["p99_ms"]], "ms", note=note, **goal)
            means.append(answer["mean_ms"])
        report.add(section, "mean among most / among fewest", [means[-1] / means[0]], goal=RESOLVE_GROWTH_MAX, at_most=True)
