import pytest

from chassis.clock import now
from chassis.ids import new_id
from chassis.unit_of_work import Commands
from loyalty.domain.earning import ErasureRule
from loyalty.store import invariants, posting, programs


@pytest.fixture
async def ledger(database, order):
    """Three members in a programme; `ledger.post(orders)` posts a batch."""
    made = Ledger(database, order)
    async with database.transaction() as connection:
        await programs.create(connection, "p", "bank", "P", ErasureRule.EXPIRE, now())
        for account_id, customer_id in made.customers.items():
            await connection.execute(
                "INSERT INTO accounts (account_id, customer_id, holder_customer_id, version, create_time)"
                " VALUES ($1, $2, $2, 1, now())",
                account_id, customer_id,
            )  # fmt: skip
    return made


class Ledger:
    def __init__(self, database, order) -> None:
        self.database, self.order = database, order
        self.customers = {new_id(): new_id() for _ in range(3)}
        self.members = sorted(self.customers)

    async def post(self, *orders):
        async with Commands(self.database).unit() as unit:
            return await self.post_in(unit, orders)

    async def post_in(self, unit, orders):
        """As whatever is asked for is posted."""
        return await posting.post(unit, orders)

    async def broken(self) -> dict[str, list[str]]:
        report = await invariants.verify(self.database)
        return {finding.invariant.name: finding.examples for finding in report.findings if finding.violations_count}

    async def fetchval(self, query, *arguments):
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *arguments)
