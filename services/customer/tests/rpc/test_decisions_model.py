"""Any order of ingests, merges, unmerges, relinks, rejections and erasures against a simple model of what must be so."""

import asyncio
import itertools
from typing import Any, ClassVar

import pytest
from customer_stewards import Steward, reason_of
from grpc.aio import AioRpcError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events_pb
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import privacy_service_pb2 as privacy_pb
from concord.customer.v1.privacy_service_pb2_grpc import PrivacyServiceStub

picks = st.integers(0, 1_000)
_people = itertools.count()


class Decisions(RuleBasedStateMachine):
    """The service beside the model: who owns each record, who was merged into whom, which pairs are rejected."""

    master: ClassVar[Any]
    loop: ClassVar[asyncio.AbstractEventLoop]

    @initialize()
    def begin(self) -> None:
        self.owner: dict[str, str] = {}  # record -> customer
        self.keys: dict[str, tuple[str, str, dict[str, str]]] = {}  # record -> parent, source key, what is said
        self.customers: list[str] = []  # in the order of their creation
        self.into: dict[str, str] = {}  # loser -> winner
        self.had: dict[str, set[str]] = {}  # loser -> its records when it lost them
        self.rejected: dict[str, set[frozenset[str]]] = {}  # rejection -> pairs of records
        self.days = itertools.count(1)
        self.operator, self.privacy = self.run(self.stewards())
        self.golden: dict[frozenset[str], bytes] = {}  # what was believed of a set of records
        for _ in range(3):
            self.ingest(0)

    # ---- what may happen

    @rule(source=picks)
    def ingest(self, source: int) -> None:
        number = next(_people)
        parent = (self.master.core, self.master.policies)[source % 2]
        said = {
            "name": _name(number),
            "born": f"{1900 + number % 100}-{number // 100 % 12 + 1:02d}-{number // 1200 % 28 + 1:02d}",
        }
        ingested = self.run(self.master.ingest(f"m{number}", parent, **said))
        self.owner[ingested.record] = ingested.customer
        self.keys[ingested.record] = parent, f"m{number}", said
        assert ingested.customer not in self.customers, "nobody is like anybody here"
        self.customers.append(ingested.customer)

    @rule(record=picks)
    def say_more(self, record: int) -> None:
        """A known record says something new; it stays where it is."""
        name = self.record(record)
        parent, key, said = self.keys[name]
        day = next(self.days)
        ingested = self.run(self.master.ingest(key, parent, day=day, **said, email=f"{key}.{day}@example.com"))
        assert (ingested.record, ingested.customer) == (name, self.owner[name])
        self.golden = {records: what for records, what in self.golden.items() if name not in records}

    @rule(one=picks, other=picks)
    def merge(self, one: int, other: int) -> None:
        ids = sorted({self.customer(one), self.customer(other)})
        if len(ids) < 2:
            return
        sides = [self.records_of(customer) for customer in ids]
        expected = ""
        if any(customer in self.into for customer in ids):
            expected = "CUSTOMER_MERGED"
        elif not all(sides):
            expected = "CUSTOMER_EMPTY"
        elif self.apart(sides[0], sides[1]):
            expected = "MATCH_REJECTED"
        answer = self.attempt(self.operator.merge(*ids), expected)
        if answer is not None:
            winner = min(ids, key=lambda customer: (-len(self.records_of(customer)), self.customers.index(customer)))
            assert answer.customer == winner
            [loser] = set(ids) - {winner}
            self.move(self.records_of(loser), winner)

    @rule(customer=picks)
    def unmerge(self, customer: int) -> None:
        loser = self.customer(customer)
        root = self.root(loser)
        back = {record for record in self.had.get(loser, ()) if self.owner[record] == root}
        expected = "" if back else "NOTHING_TO_RESTORE"
        if loser not in self.into:
            expected = "CUSTOMER_NOT_MERGED"
        answer = self.attempt(self.operator.unmerge(loser), expected)
        if answer is not None:
            counts = answer.records_restored_count, answer.records_not_restored_count
            assert counts == (len(back), len(self.had[loser] - back))
            assert {left.record: left.customer for left in answer.records_not_restored} == {
                record: self.owner[record] for record in self.had[loser] - back
            }
            del self.into[loser], self.had[loser]
            self.move(back, loser)

    @rule(record=picks, customer=st.none() | picks)
    def relink(self, record: int, customer: int | None) -> None:
        name = self.record(record)
        target = None if customer is None else self.customer(customer)
        former, expected = self.owner[name], ""
        if target is None and len(self.records_of(former)) == 1:
            expected = "RECORD_ALONE"
        elif target in self.into:
            expected = "CUSTOMER_MERGED"
        elif target == former:
            expected = "RECORD_LINKED_ALREADY"
        elif target is not None and not self.records_of(target):
            expected = "CUSTOMER_EMPTY"
        elif target is not None and self.apart({name}, self.records_of(target)):
            expected = "MATCH_REJECTED"
        answer = self.attempt(self.operator.relink(name, target or ""), expected)
        if answer is not None:
            assert answer.former_customer == former
            if target is None:
                assert answer.customer not in self.customers
                self.customers.append(answer.customer)
            self.move({name}, answer.customer)

    @rule(one=picks, other=picks)
    def reject(self, one: int, other: int) -> None:
        left, right = self.customer(one), self.customer(other)
        expected = ""
        if left in self.into or right in self.into:
            expected = "CUSTOMER_MERGED"
        elif not self.records_of(left) or not self.records_of(right):
            expected = "CUSTOMER_EMPTY"
        elif left == right:
            expected = "SAME_CUSTOMER"
        answer = self.attempt(self.operator.reject(left, right), expected)
        if answer is not None:
            self.rejected[answer.name] = {
                frozenset(pair) for pair in itertools.product(self.records_of(left), self.records_of(right))
            }
            assert answer.pairs_count == len(self.rejected[answer.name])

    @rule(rejection=picks)
    def withdraw(self, rejection: int) -> None:
        if self.rejected:
            name = sorted(self.rejected)[rejection % len(self.rejected)]
            self.run(self.operator.withdraw(name))
            del self.rejected[name]

    @precondition(lambda self: len(self.owner) > 4)
    @rule(customer=picks)
    def erase(self, customer: int) -> None:
        """A prospect is erased at once, with all records that it has by now."""
        name = self.root(self.customer(customer))
        gone = self.records_of(name)
        if gone:
            self.run(self.erased(name))
            self.owner = {record: owner for record, owner in self.owner.items() if record not in gone}
            self.had = {loser: records - gone for loser, records in self.had.items()}
            self.rejected = {rejection: {pair for pair in pairs if not pair & gone} for rejection, pairs in self.rejected.items()}

    # ---- what must be so

    @invariant()
    def every_record_has_one_live_link_and_every_name_its_answer(self) -> None:
        if not hasattr(self, "owner"):
            return
        self.run(self.check())

    async def check(self) -> None:
        records = {name.rsplit("/", 1)[1]: customer.removeprefix("customers/") for name, customer in self.owner.items()}
        async with self.master.running.application.database.connection() as connection:
            live = await connection.fetch(
                "SELECT record_id::text, customer_id::text, link_version FROM links"
                " WHERE superseded_at IS NULL AND record_id = ANY($1::text[]::uuid[])",
                list(records),
            )
            present = await connection.fetch(
                "SELECT record_id::text, customer_id::text, link_version FROM records WHERE record_id = ANY($1::text[]::uuid[])",
                list(records),
            )
        assert sorted(map(tuple, live)) == sorted(map(tuple, present))
        assert {row[0]: row[1] for row in live} == records
        for customer in self.customers:
            root = self.root(customer)
            mine = self.records_of(root)
            if not mine:
                assert await reason_of(self.master.get(customer, **self.master.operator)) == "CUSTOMER_NOT_FOUND"
                continue
            answer = await self.master.get(customer, **self.master.operator)
            assert answer.name == root
            assert {linked.record for linked in answer.linked_records} == mine
            said = customer_pb.Customer()
            said.CopyFrom(answer)
            for field in ("name", "etag", "update_time", "linked_records"):
                said.ClearField(field)
            believed = said.SerializeToString(deterministic=True)
            # The same records give the same golden customer, whatever happened in between.
            assert self.golden.setdefault(frozenset(mine), believed) == believed

    def teardown(self) -> None:
        """A consumer that folds what was published, in any order, knows the same."""
        if hasattr(self, "owner"):
            self.run(self.fold())

    async def fold(self) -> None:
        links: dict[str, tuple[int, str]] = {}
        merged: dict[str, tuple[int, str]] = {}
        moved: dict[str, str] = {}
        for event in await self.master.running.events():
            if event.type == "concord.customer.v1.customer.updated":
                state = event.message(events_pb.CustomerChanged)
                seen = state.state_version.version, state.merged_into_customer_id
                assert merged.get(state.customer_id, (0, ""))[0] < seen[0], "versions rise"
                merged[state.customer_id] = seen
                found = state.record_links
            elif event.type == "concord.customer.v1.customer.records_moved":
                message = event.message(events_pb.RecordsMoved)
                for link in message.record_links:
                    assert moved.get(link.record_id, message.from_customer_id) == message.from_customer_id, "moves join up"
                    moved[link.record_id] = message.to_customer_id
                found = message.record_links
            else:
                continue
            for link in found:
                newest = links.get(link.record_id, (0, ""))
                links[link.record_id] = max(newest, (link.state_version.version, link.customer_id))
        for record, customer in self.owner.items():
            record_id, customer_id = record.rsplit("/", 1)[1], customer.removeprefix("customers/")
            assert links[record_id][1] == customer_id
            assert moved.get(record_id, customer_id) == customer_id
        for customer in self.customers:
            assert merged[customer.removeprefix("customers/")][1] == self.into.get(customer, "").removeprefix("customers/")

    async def stewards(self) -> tuple[Steward, PrivacyServiceStub]:
        # A channel belongs to the loop that it is made on.
        channel = self.master.channel(scopes=("personal.erase",), **self.master.operator)
        return Steward(self.master), PrivacyServiceStub(channel)

    async def erased(self, name: str) -> None:
        request = privacy_pb.EraseCustomerRequest(
            name=name, legal_basis_code="DATA_SUBJECT_REQUEST", request_id=self.master.request_id()
        )
        await self.privacy.EraseCustomer(request)

    # ---- the model

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def attempt(self, coroutine: Any, expected: str) -> Any:
        """The answer; None when it was refused, as expected."""
        if not expected:
            return self.run(coroutine)
        with pytest.raises(AioRpcError) as refused:
            self.run(coroutine)
        assert reason(refused.value) == expected
        return None

    def record(self, pick: int) -> str:
        return list(self.owner)[pick % len(self.owner)]

    def customer(self, pick: int) -> str:
        return self.customers[pick % len(self.customers)]

    def records_of(self, customer: str) -> set[str]:
        return {record for record, owner in self.owner.items() if owner == customer}

    def root(self, customer: str) -> str:
        while customer in self.into:
            customer = self.into[customer]
        return customer

    def apart(self, left: set[str], right: set[str]) -> bool:
        pairs = {frozenset(pair) for pair in itertools.product(left, right)}
        return any(pairs & rejected for rejected in self.rejected.values())

    def move(self, records: set[str], to: str) -> None:
        former = {self.owner[record] for record in records}
        for record in records:
            self.owner[record] = to
        for customer in former:
            if not self.records_of(customer):
                self.into[customer], self.had[customer] = to, set(records)


def _name(number: int) -> str:
    """A name like nobody else's."""
    letters = "".join(chr(ord("a") + (number * 7919 + place * place * 104_729 + place * 31) % 26) for place in range(12))
    return f"{letters[:7].title()} {letters[5:].title()}q{number}"


async def test_any_order_of_decisions_is_as_the_model_says(master):
    Decisions.master, Decisions.loop = master, asyncio.get_running_loop()
    few = settings(
        max_examples=10,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    await asyncio.to_thread(run_state_machine_as_test, Decisions, settings=few)
