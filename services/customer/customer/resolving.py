"""To whom the records of a batch belong: asks the match model, and does what follows. No I/O."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from concord.customer.v1.party_pb2 import Party
from customer.candidates import Evidence, Holders, evidence
from customer.changes import Changes, Why
from customer.domain.features import Features
from customer.domain.matching import Decision, Explanation, Model, Zone, decide, guard
from customer.domain.merging import Candidate, winner
from customer.domain.vocabulary import LinkOrigin, MoveReason, ResolutionReason
from customer.store.record_writes import Content
from customer.store.records import Member
from customer.store.reviews import NewItem, ReviewKind

_REASONS = {"IDENTITY_DOCUMENT": ResolutionReason.IDENTITY_DOCUMENT}
_CONTRADICTIONS = frozenset({"DIFFERENT_DOCUMENT", "BIRTH_DATE_DIFFERS", "GIVEN_NAME_DIFFERS"})


def reason_of(decision: Decision) -> ResolutionReason:
    """Why a decision links."""
    return _REASONS.get(decision.reason, ResolutionReason.MATCH_WEIGHT)


@dataclass(frozen=True, slots=True)
class Alone:
    """A new record that was decided to be nobody else, and is written without being looked at again."""

    customer_id: UUID
    content_hash: bytes
    features: Features


class Resolver:
    """Follows the decisions of a batch: what one record brought, the next one is compared with.

    `questions` are what stewards have to decide.
    """

    def __init__(
        self,
        changes: Changes,
        model: Model,
        holders: Holders,
        records: Mapping[UUID, Member],
        rejected: Mapping[UUID, Collection[UUID]],
        population: int,
    ) -> None:
        self._changes = changes
        self._model = model
        self.model_version = model.version
        self._holders = holders
        self._records = dict(records)
        self._rejected = rejected
        self._population = population
        self._evidence = Evidence()
        self._waiting: dict[UUID, Callable[[], Alone]] = {}
        self._alone: dict[UUID, Alone] = {}
        self.questions: list[NewItem] = []

    def resolve(self, member: Member, content: Content) -> ResolutionReason:
        """Links a new record with a customer, or makes one; returns why."""
        keys = content.blocking_keys
        decision = self._decide(self._evidence.of(member), self._candidates(keys), ()) if self._holders.of(keys) else None
        if decision is not None and decision.zone is Zone.LINK and decision.customer_id is not None:
            member.customer_id, why = decision.customer_id, self._why(member, decision)
        else:
            member.customer_id = self._changes.new_customer()
            why = Why(ResolutionReason.NEW_CUSTOMER, model_version=self._model.version)
        self._changes.add(member, content, why)
        self._register(member, keys)
        if decision is not None:
            self._follow(member, decision)
        return why.reason

    def leaves_alone(self, record_id: UUID, keys: Sequence[int], alone: Callable[[], Alone]) -> bool:
        """Whether a new record is nobody else, so that it may be written as it was prepared. Stewards are asked what is unsure.

        `alone` is asked only when somebody comes near.
        """
        near = self._holders.of(keys)
        self._waiting[record_id] = alone
        if near:
            mine = self._alone_one(record_id)
            decision = self._decide(mine.features, self._candidates(keys), ())
            if decision.zone is Zone.LINK:
                del self._waiting[record_id], self._alone[record_id]
                return False
            for rival in decision.near:
                self._ask(record_id, rival.record_id, rival.weight_bits, rival.explanation)
        self._holders.add(keys, record_id)
        return True

    def take_back(self, keys: Sequence[int]) -> list[UUID]:
        """The records with one of these keys that were left alone: they are to be decided on like others from now on."""
        near = sorted({found for found in self._holders.of(keys) if found in self._waiting})
        for record_id in near:
            del self._waiting[record_id]
            self._alone.pop(record_id, None)
        return near

    def _alone_one(self, record_id: UUID) -> Alone:
        one = self._alone.get(record_id)
        if one is None:
            one = self._alone[record_id] = self._waiting[record_id]()
        return one

    def add_alone(self, member: Member, content: Content, customer_id: UUID) -> None:
        """Makes a customer for a new record that was left alone until now."""
        member.customer_id = self._changes.new_customer(customer_id)
        self._changes.add(member, content, Why(ResolutionReason.NEW_CUSTOMER, model_version=self._model.version))
        self._records[member.record_id] = member

    def resolve_again(self, member: Member, party: Party, keys: Sequence[int]) -> ResolutionReason:
        """Gives a known record its new party, and moves it if what identifies it says so; returns why it is where it is then.

        It stays where it is while it can: a source rarely means another person by the same key. What was decided by hand stays.
        """
        former = self._evidence.of(member)
        features = evidence(party, member.source_system)
        member.party = party
        self._evidence.replace(member, features)
        self._register(member, keys)
        if features == former or member.origin == LinkOrigin.MANUAL:
            return ResolutionReason.SOURCE_KEY
        home = member.customer_id
        mates = self._evidence.of_customer(self._changes.members[home], member.record_id)
        candidates = self._candidates(keys, member.record_id)
        if mates:
            candidates[home] = mates
        decision = self._decide(features, candidates, self._rejected.get(member.record_id, ()))
        target = self._target(home, decision)
        if target is None and mates and self._has_left(features, former, mates):
            target = self._changes.new_customer()
            self._changes.move(
                member, target, Why(ResolutionReason.NEW_CUSTOMER, model_version=self._model.version), MoveReason.RELINK
            )
            reason = ResolutionReason.NEW_CUSTOMER
        elif target is not None:
            why = self._why(member, decision)
            self._changes.move(member, target, why, MoveReason.RELINK)
            reason = why.reason
        else:
            reason = ResolutionReason.SOURCE_KEY
        self._follow(member, decision)
        return reason

    @staticmethod
    def _target(home: UUID, decision: Decision) -> UUID | None:
        """Where a known record goes; None when it stays, because nobody else is surely the same or its own customer is too."""
        if decision.zone is not Zone.LINK or decision.customer_id == home:
            return None
        linkable = {rival.customer_id for rival in decision.rivals if rival.zone is Zone.LINK}
        return None if home in linkable else decision.customer_id

    def _has_left(self, features: Features, former: Features, mates: Mapping[UUID, Features]) -> bool:
        """Whether a record contradicts those it was linked with, or has become somebody else altogether."""
        if any(mate.party_kind != features.party_kind for mate in mates.values()):
            return True
        if guard(self._model, features, mates) in _CONTRADICTIONS:
            return True
        itself, others = UUID(int=0), UUID(int=1)
        known = {itself: {itself: former}, others: mates}
        return self._decide(features, known, ()).zone is Zone.NEW

    def _decide(
        self, features: Features, candidates: Mapping[UUID, Mapping[UUID, Features]], never: Collection[UUID]
    ) -> Decision:
        return decide(self._model, features, candidates, population=self._population, never_link=never)

    def _candidates(self, keys: Sequence[int], record_id: UUID | None = None) -> dict[UUID, dict[UUID, Features]]:
        made: dict[UUID, dict[UUID, Features]] = {}
        for found in self._holders.of(keys, record_id):
            if found in self._records:
                customer_id = self._records[found].customer_id
                if customer_id not in made:
                    made[customer_id] = self._evidence.of_customer(self._changes.members[customer_id], record_id)
            elif found in self._waiting:
                one = self._alone_one(found)
                made[one.customer_id] = {found: one.features}
        return {customer_id: members for customer_id, members in made.items() if members}

    def _register(self, member: Member, keys: Sequence[int]) -> None:
        self._records[member.record_id] = member
        self._holders.add(keys, member.record_id)

    def _why(self, member: Member, decision: Decision) -> Why:
        kept = b""
        if decision.explanation is not None and decision.record_id is not None:
            kept = decision.explanation.between(member.record_id, decision.record_id).to_bytes()
        return Why(reason_of(decision), LinkOrigin.AUTO, self._model.version, decision.weight_bits, kept)

    def _follow(self, member: Member, decision: Decision) -> None:
        """Joins customers that a record proves to be one, and asks stewards about those that it only makes likely."""
        joined: set[UUID] = set()
        same = {decision.customer_id, *decision.bridges} - {None}
        if decision.bridges and member.customer_id in same:
            joined = self._join({customer_id for customer_id in same if customer_id is not None}, self._why(member, decision))
        if decision.zone is Zone.STEWARD and decision.customer_id != member.customer_id and decision.record_id is not None:
            self._ask(member.record_id, decision.record_id, decision.weight_bits, decision.explanation)
        for rival in decision.rivals:
            if rival.customer_id not in joined and rival.customer_id != member.customer_id:
                self._ask(member.record_id, rival.record_id, rival.weight_bits, rival.explanation)

    def _join(self, customer_ids: set[UUID], why: Why) -> set[UUID]:
        """Merges customers into the one that wins; not those with a record that a steward linked, or keeps apart from these."""
        changes = self._changes
        best = winner(
            Candidate(customer_id, len(changes.members[customer_id]), changes.rows[customer_id].create_time)
            for customer_id in customer_ids
        )
        joined, together = {best}, set(changes.members[best])
        merged = Why(ResolutionReason.MERGE, why.origin, why.model_version, why.weight_bits, why.explanation)
        for customer_id in sorted(customer_ids - {best}):
            members = list(changes.members[customer_id].values())
            apart = any(not together.isdisjoint(self._rejected.get(member.record_id, ())) for member in members)
            if apart or any(member.origin == LinkOrigin.MANUAL for member in members):
                continue
            for member in members:
                changes.move(member, best, merged, MoveReason.MERGE)
                together.add(member.record_id)
            joined.add(customer_id)
        return joined

    def _ask(self, record_id: UUID, rival_id: UUID, weight_bits: float, explanation: Explanation | None) -> None:
        self.questions.append(
            NewItem(
                ReviewKind.POSSIBLE_MATCH,
                (record_id,),
                (rival_id,),
                content=b"".join(sorted((self._content_hash(record_id), self._content_hash(rival_id)))),
                weight_bits=weight_bits,
                explanation=explanation.to_bytes() if explanation else b"",
                model_version=self._model.version,
            )
        )

    def _content_hash(self, record_id: UUID) -> bytes:
        return self._records[record_id].content_hash if record_id in self._records else self._alone_one(record_id).content_hash
