import logging

import pytest

from loyalty.domain.ledger.types import OperationKind
from loyalty.store import invariants
from loyalty.store.invariants import INVARIANTS
from loyalty.store.watch import Watch

EARN, REDEEM = OperationKind.EARN, OperationKind.REDEEM
UNGUARDED = """
ALTER TABLE operations DISABLE TRIGGER ALL;
ALTER TABLE entries DISABLE TRIGGER ALL;
ALTER TABLE ledger_accounts DROP CONSTRAINT ledger_accounts_member_not_below_zero;
DROP INDEX operations_request;
ALTER TABLE operations DROP CONSTRAINT operations_amounts;
"""
MEMBER = "(SELECT ledger_account_id FROM ledger_accounts WHERE kind = 'MEMBER' ORDER BY 1 LIMIT 1)"
LAST = "(SELECT max(sequence) FROM operations)"
# A fault, and every invariant that it breaks: so a check that sees too much fails here as well as one that sees nothing.
FAULTS = [
    (
        f"UPDATE entries SET amount_points = amount_points + 1 WHERE ledger_account_id = {MEMBER} AND version = 2",
        "ENTRIES_SUM_TO_ZERO BALANCE_IS_SUM_OF_ENTRIES BALANCE_CHAIN_UNBROKEN LEGS_SUM_TO_ZERO OPERATION_IS_ITS_MEMBER_LEG"
        " HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE ledger_accounts SET balance_points = balance_points + 1 WHERE ledger_account_id = {MEMBER}",
        "BALANCES_SUM_TO_ZERO BALANCE_IS_SUM_OF_ENTRIES",
    ),
    (f"UPDATE ledger_accounts SET version = version + 1 WHERE ledger_account_id = {MEMBER}", "ENTRY_VERSIONS_WITHOUT_GAPS"),
    (
        f"UPDATE entries SET version = 9 WHERE ledger_account_id = {MEMBER} AND version = 2",
        "ENTRY_VERSIONS_WITHOUT_GAPS BALANCE_CHAIN_UNBROKEN HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE entries SET balance_points = balance_points + 1 WHERE ledger_account_id = {MEMBER} AND version = 2",
        "BALANCE_CHAIN_UNBROKEN OPERATION_IS_ITS_MEMBER_LEG HASH_CHAIN_UNBROKEN",
    ),
    (
        f"DELETE FROM entries WHERE sequence = {LAST}",
        "BALANCE_IS_SUM_OF_ENTRIES ENTRY_VERSIONS_WITHOUT_GAPS LEGS_SUM_TO_ZERO OPERATION_IS_ITS_MEMBER_LEG HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE operations SET outcome = 'INSUFFICIENT_POINTS' WHERE sequence = {LAST}",
        "REFUSED_WITHOUT_LEGS HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE operations SET amount_points = amount_points + 1 WHERE sequence = {LAST}",
        "OPERATION_IS_ITS_MEMBER_LEG HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE ledger_accounts SET balance_points = -1 WHERE ledger_account_id = {MEMBER}",
        "BALANCES_SUM_TO_ZERO BALANCE_IS_SUM_OF_ENTRIES NO_MEMBER_BELOW_ZERO",
    ),
    (
        f"UPDATE operations SET request_id = 'e-0' WHERE sequence = {LAST}",
        "ONE_OPERATION_PER_KEY HASH_CHAIN_UNBROKEN",
    ),
    (
        f"UPDATE entries SET sequence = sequence + 1 WHERE sequence = {LAST};"
        " UPDATE operations SET sequence = sequence + 1 WHERE sequence = (SELECT max(sequence) FROM operations)",
        "SEQUENCE_WITHOUT_GAPS HASH_CHAIN_UNBROKEN",
    ),
    ("UPDATE ledger_heads SET sequence = sequence + 1", "SEQUENCE_WITHOUT_GAPS"),
    ("DELETE FROM outbox WHERE row_id = (SELECT max(row_id::text)::uuid FROM outbox)", "EVENT_FOR_EACH_OPERATION"),
    (f"UPDATE operations SET rule = 'forged' WHERE sequence = {LAST}", "HASH_CHAIN_UNBROKEN"),
    (f"UPDATE operations SET post_time = post_time - interval '1 us' WHERE sequence = {LAST}", "HASH_CHAIN_UNBROKEN"),
    ("UPDATE ledger_heads SET hash = decode(repeat('ab', 32), 'hex')", "HASH_CHAIN_UNBROKEN"),
    (
        f"DELETE FROM entries WHERE sequence = {LAST}; DELETE FROM operations WHERE sequence = {LAST}",
        "BALANCE_IS_SUM_OF_ENTRIES ENTRY_VERSIONS_WITHOUT_GAPS SEQUENCE_WITHOUT_GAPS HASH_CHAIN_UNBROKEN",
    ),
]


@pytest.fixture
async def filled(ledger):
    """Ten operations, one of them refused; the last one moved points."""
    await ledger.post(*(ledger.order(EARN, member, 100, f"e-{i}") for i, member in enumerate(ledger.members)))
    await ledger.post(ledger.order(REDEEM, ledger.members[0], 101, "refused"))
    await ledger.post(
        *(ledger.order(REDEEM, member, 10, f"r-{i}-{n}") for i, member in enumerate(ledger.members) for n in range(2))
    )
    return ledger


async def plant(ledger, fault: str) -> None:
    async with ledger.database.transaction() as connection:
        await connection.execute(UNGUARDED)
        await connection.execute(fault)


async def test_an_honest_ledger_is_valid(filled, ledger):
    report = await invariants.verify(filled.database)
    assert (report.valid, report.operations_count, report.entries_count, report.sequence) == (True, 10, 18, 10)
    assert [finding.invariant for finding in report.findings] == list(INVARIANTS)
    for after in range(11):
        assert (await invariants.verify(filled.database, after)).valid


async def test_an_empty_ledger_is_valid(ledger):
    report = await invariants.verify(ledger.database)
    assert (report.valid, report.operations_count, report.sequence) == (True, 0, 0)


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
async def test_a_planted_fault_is_caught_by_name(filled, fault, expected):
    await plant(filled, fault)
    broken = await filled.broken()
    assert set(broken) == set(expected.split())
    assert all(broken.values())
    # Looking only at what is new finds the same, where it is in what is new; a programme's entries are summed by the full check.
    if "version = 2" not in fault and "'e-0'" not in fault:
        report = await invariants.verify(filled.database, 4)
        assert {f.invariant.name for f in report.findings if f.violations_count} == set(broken) - {"ENTRIES_SUM_TO_ZERO"}


def test_every_invariant_has_a_planted_fault():
    assert {name for _, expected in FAULTS for name in expected.split()} == {invariant.name for invariant in INVARIANTS}


async def test_examples_name_the_rows(filled):
    operation_id = await filled.fetchval("SELECT operation_id FROM operations WHERE sequence = 6")
    await plant(filled, "UPDATE operations SET balance_points = 7 WHERE sequence = 6")
    assert (await filled.broken()) == {
        "OPERATION_IS_ITS_MEMBER_LEG": [str(operation_id)],
        "HASH_CHAIN_UNBROKEN": [str(operation_id)],
    }


async def test_the_watch_sees_what_is_new_and_keeps_seeing_it(filled, caplog):
    watch = Watch(filled.database)
    assert (await watch.check()).operations_count == 10
    assert (await watch.check()).operations_count == 0
    await filled.post(filled.order(EARN, filled.members[0], 5, "late"))
    await plant(filled, f"UPDATE entries SET balance_points = balance_points + 1 WHERE sequence = {LAST}")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            report = await watch.check()
            assert (report.valid, report.operations_count) == (False, 1)
    assert "BALANCE_CHAIN_UNBROKEN" in caplog.text
