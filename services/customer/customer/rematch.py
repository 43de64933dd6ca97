"""A run over all records, page by page: customers that matching should have joined, and customers that should be several.

Pages are ranges of blocking keys, then of customers. What a page found and how far the run is commit together, so that a run that
was killed goes on with the page it was at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from uuid import UUID

from chassis import leases
from chassis.leases import Lease
from chassis.unit_of_work import Commands, UnitOfWork
from customer.candidates import evidence
from customer.changes import Changes, Why
from customer.core import Core
from customer.domain.features import Features
from customer.domain.match_jobs import FindingKind, RunState, doubt
from customer.domain.match_model import Model
from customer.domain.matching import Decision, Explanation, Zone, decide, explain, may_join
from customer.domain.merging import Candidate, winner
from customer.domain.vocabulary import LinkOrigin, MoveReason, ResolutionReason
from customer.store import matches, rejections, reviews
from customer.store import rematches as store
from customer.store.records import Member, by_ids, visible
from customer.store.rematches import Finding, Held, RunRow
from customer.store.reviews import NewItem, ReviewKind

KEYS_AT_ONCE = 5_000
CUSTOMERS_AT_ONCE = 200
KEYS_PERCENT = 80
"""The keys are the longer part of a run."""
_KEY_MIN, _KEYS_COUNT = -(2**63), 2**64
_NOBODY = UUID(int=0)
_IDENTITY_RULES = frozenset({"SAME_DOCUMENT", "DOCUMENT_OF_ANOTHER"})


class LeaseLost(Exception):
    """Another worker has the jobs: what was done last is not kept."""


@dataclass(frozen=True, slots=True)
class _Near:
    """Two records of different customers that come near each other."""

    one: Member
    other: Member
    explanation: Explanation


class Run:
    """One run in hand."""

    def __init__(self, core: Core, commands: Commands, model: Model, row: RunRow, lease: Lease) -> None:
        self._core = core
        self._commands = commands
        self._model = model
        self._row = row
        self._lease = lease
        self._population = 0

    async def work(self) -> None:
        """Until the run is finished.

        Raises:
            LeaseLost: another worker goes on with it.
        """
        async with self._core.database.connection() as connection:
            self._population = await matches.population(connection)
        phase, _, position = (self._row.progress or f"keys {_KEY_MIN}").partition(" ")
        if phase == "keys":
            after: int | None = int(position)
            while after is not None:
                after = await self._page_of_keys(after)
            position = str(_NOBODY)
        customer: UUID | None = UUID(position)
        while customer is not None:
            customer = await self._page_of_customers(customer)
        async with self._commands.unit() as unit:
            await store.finished(unit.connection, self._row.rematch_id, RunState.SUCCEEDED, "", unit.now)

    async def _progressed(self, unit: UnitOfWork, progress: str, percent: int, pairs_count: int = 0) -> None:
        if not await leases.renew(unit.connection, self._lease):
            raise LeaseLost
        await store.progressed(unit.connection, self._row.rematch_id, progress, percent, pairs_count)

    # ---- customers that should be one

    async def _page_of_keys(self, after: int) -> int | None:
        async with self._core.database.connection() as connection:
            last, held = await store.page_of_keys(connection, after, KEYS_AT_ONCE, matches.RECORDS_OF_A_KEY_MAX)
            pairs = _pairs(held)
            ids = {record_id for pair in pairs for record_id in pair}
            members = {member.record_id: member for member in await by_ids(connection, self._core.vault, ids, None)}
        for near in self._near(pairs, members):
            async with self._commands.unit() as unit:
                await self._judge(unit, near)
        if last is not None:
            percent = KEYS_PERCENT * (last - _KEY_MIN) // _KEYS_COUNT
            async with self._commands.unit() as unit:
                await self._progressed(unit, f"keys {last}", percent, len(pairs))
            return last
        async with self._commands.unit() as unit:
            await self._progressed(unit, f"customers {_NOBODY}", KEYS_PERCENT)
        return None

    def _near(self, pairs: Iterable[tuple[UUID, UUID]], members: dict[UUID, Member]) -> list[_Near]:
        """Of each pair of customers the two records that come nearest, if they come near enough."""
        made: dict[UUID, Features] = {}
        best: dict[frozenset[UUID], _Near] = {}
        for one, other in pairs:
            if one not in members or other not in members:
                continue  # erased
            for record_id in (one, other):
                if record_id not in made:
                    made[record_id] = evidence(members[record_id].party, members[record_id].source_system)
            found = explain(self._model, made[one], made[other], population=self._population)
            if found.weight_bits < self._model.steward_bits and found.rule not in _IDENTITY_RULES:
                continue
            customers = frozenset((members[one].customer_id, members[other].customer_id))
            known = best.get(customers)
            if known is None or found.weight_bits > known.explanation.weight_bits:
                best[customers] = _Near(members[one], members[other], found)
        return list(best.values())

    async def _judge(self, unit: UnitOfWork, near: _Near) -> None:
        """Two customers as they are now, all their records seen: merges them, asks a steward, or leaves them."""
        changes = Changes(unit, self._core)
        left, right = near.one.customer_id, near.other.customer_id
        await changes.load([left, right])
        sides = [changes.members.get(customer, {}) for customer in (left, right)]
        if near.one.record_id not in sides[0] or near.other.record_id not in sides[1]:
            return  # moved or erased meanwhile
        rejected = await rejections.rejected_with(unit.connection, list(sides[0]))
        if any(not others.isdisjoint(sides[1]) for others in rejected.values()):
            return
        decision = self._decide(near, sides)
        if decision.zone is Zone.NEW or decision.explanation is None:
            return
        by_hand = any(member.origin == LinkOrigin.MANUAL for side in sides for member in side.values())
        restricted = any(changes.rows[customer].restricted for customer in (left, right))
        applied = self._row.apply_links and decision.zone is Zone.LINK and not by_hand and not restricted
        finding = Finding(
            FindingKind.MISSED_PAIR, min(left, right), max(left, right), 0, decision.zone, decision.reason,
            decision.explanation.to_bytes(), applied,
        )  # fmt: skip
        await store.keep_findings(unit.connection, self._row.rematch_id, [finding])
        if applied:
            await self._merge(changes, [left, right], decision)
        else:
            content = b"".join(sorted((near.one.content_hash, near.other.content_hash)))
            item = NewItem(
                ReviewKind.POSSIBLE_MATCH, (near.one.record_id,), (near.other.record_id,), content,
                decision.weight_bits, decision.explanation.to_bytes(), self._model.version,
            )  # fmt: skip
            await reviews.open_items(unit.connection, [item], unit.now)

    def _decide(self, near: _Near, sides: Sequence[dict[UUID, Member]]) -> Decision:
        made = [{record_id: evidence(member.party, member.source_system) for record_id, member in side.items()} for side in sides]
        decision = decide(
            self._model, made[0][near.one.record_id], {near.other.customer_id: made[1]}, population=self._population
        )
        if decision.zone is Zone.LINK and not may_join(self._model, made[0], made[1]):
            decision = replace(decision, zone=Zone.STEWARD, reason="RECORDS_OBJECT")
        if decision.explanation is None or decision.record_id is None:
            return decision
        return replace(decision, explanation=decision.explanation.between(near.one.record_id, decision.record_id))

    async def _merge(self, changes: Changes, customers: Sequence[UUID], decision: Decision) -> None:
        assert decision.explanation is not None
        best = winner(
            Candidate(customer, len(changes.members[customer]), changes.rows[customer].create_time) for customer in customers
        )
        why = Why(
            ResolutionReason.MERGE, LinkOrigin.AUTO, self._model.version, decision.weight_bits, decision.explanation.to_bytes()
        )
        for customer in customers:
            if customer != best:
                for member in list(changes.members[customer].values()):
                    changes.move(member, best, why, MoveReason.MERGE)
        await changes.write()

    # ---- customers that should be several

    async def _page_of_customers(self, after: UUID) -> UUID | None:
        async with self._core.database.connection() as connection:
            customers = await store.page_of_customers(connection, after, CUSTOMERS_AT_ONCE)
            if not customers:
                return None
            found = await visible(connection, self._core.vault, [(customer, None) for customer in customers])
        findings, items = [], []
        for customer, members in zip(customers, found, strict=True):
            made = {member.record_id: evidence(member.party, member.source_system) for member in members}
            by_hand = {member.record_id for member in members if member.origin == LinkOrigin.MANUAL}
            doubted = doubt(self._model, made, by_hand, self._population)
            if doubted is None:
                continue
            kept = doubted.explanation.to_bytes()
            findings.append(
                Finding(FindingKind.DOUBTFUL_CLUSTER, customer, customer, len(doubted.apart), Zone.STEWARD, "PARTS", kept, False)
            )
            content = b"".join(sorted(member.content_hash for member in members))
            weight = doubted.explanation.weight_bits
            items.append(
                NewItem(ReviewKind.DOUBTFUL_CLUSTER, doubted.stay, doubted.apart, content, weight, kept, self._model.version)
            )
        async with self._commands.unit() as unit:
            await store.keep_findings(unit.connection, self._row.rematch_id, findings)
            await reviews.open_items(unit.connection, items, unit.now)
            percent = KEYS_PERCENT + (99 - KEYS_PERCENT) * len(customers) // CUSTOMERS_AT_ONCE
            await self._progressed(unit, f"customers {customers[-1]}", percent)
        return customers[-1]


def _pairs(held: Sequence[Held]) -> list[tuple[UUID, UUID]]:
    """Pairs of records of different customers that share a key, each at the first key they share, so that a pair comes once."""
    by_key: dict[int, list[Held]] = {}
    for one in held:
        by_key.setdefault(one.key, []).append(one)
    return [
        (one.record_id, other.record_id)
        for key, holders in by_key.items()
        for one, other in combinations(holders, 2)
        if one.customer_id != other.customer_id and min(set(one.keys) & set(other.keys), default=key) == key
    ]
