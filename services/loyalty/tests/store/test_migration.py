"""A database from before there were lots."""

import asyncio
import json
import uuid

import asyncpg
from alembic import command

from chassis import migrations
from chassis.database import Database
from chassis.ids import new_id
from chassis.unit_of_work import Commands
from loyalty.domain.ledger.chain import chain_hash
from loyalty.domain.ledger.types import AccountKey, AccountKind, Entry, Operation, OperationKind, Outcome, RequestKey
from loyalty.store import invariants, posting

BEFORE = "202611240048"
BEGIN = """
INSERT INTO programs (program_id, institution_id, display_name, version, create_time) VALUES ('p', 'bank', 'P', 1, now());
INSERT INTO accounts (account_id, customer_id, holder_customer_id, version, create_time)
SELECT a, a, a, 1, now() FROM unnest('{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002}'::uuid[]) a;
"""
ANA, BOB = uuid.UUID(int=1), uuid.UUID(int=2)


async def test_balances_become_lots_without_end_and_the_chain_goes_on(postgres_server, order):
    name = f"test_{new_id().hex}"
    url = postgres_server.url(name)
    server = await asyncpg.connect(postgres_server.url())
    await server.execute(f"CREATE DATABASE {name}")
    try:
        await asyncio.to_thread(command.upgrade, migrations.config("loyalty:migrations", url), BEFORE)
        connection = await asyncpg.connect(url)
        await connection.execute(BEGIN)
        await _post_as_before(connection)
        await connection.close()
        await migrations.migrate("loyalty:migrations", url)
        database = await Database.connect(url)
        try:
            async with database.connection() as connection:  # type: ignore[assignment]
                lots = await connection.fetch(
                    "SELECT lot_id, account_id, institution_id, issued_points, remaining_points, state, expire_time FROM lots"
                )
            assert [tuple(row) for row in lots] == [(3 * 1024, ANA, "bank", 70, 70, "ACTIVE", None)]
            async with Commands(database).unit() as unit:
                results = await posting.post(
                    unit, [order(OperationKind.REDEEM, ANA, 70, "all"), order(OperationKind.EARN, BOB, 5, "new")]
                )
            assert [result.outcome for result in results] == ["POSTED", "POSTED"]
            report = await invariants.verify(database)
            assert [finding.invariant.name for finding in report.findings if finding.violations_count] == []
        finally:
            await database.close()
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def _post_as_before(connection) -> None:
    """What the ledger wrote: Ana earns 100 and redeems 30, Bob earns and redeems 20."""
    now = await connection.fetchval("SELECT now()")
    moves = [(BOB, "EARN", 20), (BOB, "REDEEM", -20), (ANA, "EARN", 100), (ANA, "REDEEM", -30)]
    moves = [moves[2], moves[0], moves[3], moves[1]]
    previous, states = bytes(32), {}  # type: ignore[var-annotated]
    for sequence, (member, kind, change) in enumerate(moves, 1):
        other = AccountKey("bank", AccountKind.ISSUER, "p") if kind == "EARN" else AccountKey("shop", AccountKind.PARTNER, "p")
        entries = []
        for key, amount in ((AccountKey(str(member), AccountKind.MEMBER, "p"), change), (other, -change)):
            version, balance = states.get(key, (0, 0))
            states[key] = version + 1, balance + amount
            entries.append(Entry(key, version + 1, amount, balance + amount))
            await connection.execute(
                "INSERT INTO ledger_accounts (owner, kind, program_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", *key
            )
        operation = Operation(
            new_id(), RequestKey("bank/app", str(sequence)), OperationKind(kind), member, "p", other.owner, abs(change), now, b"",
            "", "", sequence, Outcome.POSTED, entries[0].balance_points, 0, now,
        )  # fmt: skip
        previous = chain_hash(previous, operation, entries)
        await connection.execute(
            "INSERT INTO operations (operation_id, sequence, kind, outcome, account_id, program_id, institution_id,"
            " amount_points, balance_points, shortfall_points, caller, request_id, content_hash, reference, rule,"
            " effective_time, post_time, hash)"
            " VALUES ($1, $2, $3, 'POSTED', $4, 'p', $5, $6, $7, 0, 'bank/app', $8, '', '', '', $9, $9, $10)",
            operation.operation_id, sequence, kind, member, other.owner, abs(change), entries[0].balance_points, str(sequence),
            now, previous,
        )  # fmt: skip
        await connection.execute(
            "WITH e AS (INSERT INTO entries"
            " SELECT a.ledger_account_id, (s ->> 2)::bigint, $1, (s ->> 3)::bigint, (s ->> 4)::bigint"
            " FROM jsonb_array_elements($2::jsonb) s JOIN ledger_accounts a ON a.owner = s ->> 0 AND a.kind = s ->> 1"
            " RETURNING *)"
            " UPDATE ledger_accounts a SET balance_points = e.balance_points, version = e.version FROM e"
            " WHERE a.ledger_account_id = e.ledger_account_id",
            sequence,
            json.dumps([
                [e.key.owner, e.key.kind, e.version, e.amount_points, e.balance_points]
                for e in entries
            ]),
        )  # fmt: skip
        await connection.execute("INSERT INTO outbox (row_id, event_id, type, aggregate_id, payload, occurred_at)"
                                 " VALUES ($1, $2, 'concord.loyalty.v1.points.posted', $3, '', $4)",
                                 new_id(), operation.operation_id, str(member), now)  # fmt: skip
    await connection.execute("UPDATE ledger_heads SET sequence = $1, hash = $2", len(moves), previous)
