"""Who is the same person: by source key, else by a valid identity document that nothing contradicts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from customer.domain.vocabulary import ResolutionReason


@dataclass(frozen=True, slots=True)
class Document:
    """A valid identity document in its standard form."""

    scheme: int
    country_code: str
    number: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides about identity in one record. Only valid documents and a birth date that exists are evidence."""

    party_kind: int
    birth_date: str = ""
    documents: frozenset[Document] = frozenset()

    def shares_document(self, other: "Identity") -> bool:
        """Whether both hold one document."""
        return not self.documents.isdisjoint(other.documents)

    def contradicts(self, other: "Identity") -> bool:
        """Whether the two cannot be one party: another kind, another birth date, or other documents of one scheme and country."""
        if self.party_kind != other.party_kind:
            return True
        if self.birth_date and other.birth_date and self.birth_date != other.birth_date:
            return True
        theirs = _by_scheme(other.documents)
        return any(numbers.isdisjoint(theirs.get(scheme, numbers)) for scheme, numbers in _by_scheme(self.documents).items())


def _by_scheme(documents: Iterable[Document]) -> dict[tuple[int, str], set[str]]:
    numbers: dict[tuple[int, str], set[str]] = {}
    for document in documents:
        numbers.setdefault((document.scheme, document.country_code), set()).add(document.number)
    return numbers


@dataclass(slots=True)
class Customers:
    """The customers that a batch may touch, with the identities of all their records; follows the decisions of the batch."""

    members: dict[UUID, dict[UUID, Identity]] = field(default_factory=dict)
    _holders: dict[Document, set[UUID]] = field(default_factory=dict)

    def link(self, customer_id: UUID, record_id: UUID, identity: Identity) -> None:
        """A record belongs to a customer, with this identity."""
        self.members.setdefault(customer_id, {})[record_id] = identity
        for document in identity.documents:
            self._holders.setdefault(document, set()).add(customer_id)

    def unlink(self, customer_id: UUID, record_id: UUID) -> None:
        """A record belongs to a customer no more."""
        self.members[customer_id].pop(record_id)

    def _others(self, customer_id: UUID, record_id: UUID | None) -> list[Identity]:
        return [identity for member, identity in self.members.get(customer_id, {}).items() if member != record_id]

    def _contradict(self, customer_id: UUID, record_id: UUID | None, identity: Identity) -> bool:
        return any(identity.contradicts(other) for other in self._others(customer_id, record_id))

    def matching(self, identity: Identity, record_id: UUID | None = None) -> list[UUID]:
        """Customers with a record, not this one, that shares a document, and none that contradicts; the oldest first."""
        holders = {holder for document in identity.documents for holder in self._holders.get(document, ())}
        return [
            holder
            for holder in sorted(holders)
            if any(identity.shares_document(other) for other in self._others(holder, record_id))
            and not self._contradict(holder, record_id, identity)
        ]

    def resolve(self, identity: Identity) -> tuple[UUID | None, ResolutionReason]:
        """The customer of a new record; None for a new customer."""
        matching = self.matching(identity)
        if matching:
            return matching[0], ResolutionReason.IDENTITY_DOCUMENT
        return None, ResolutionReason.NEW_CUSTOMER

    def resolve_again(
        self, identity: Identity, former: Identity, record_id: UUID, customer_id: UUID
    ) -> tuple[UUID | None, ResolutionReason]:
        """The customer of a known record in a new state; None for a new customer.

        It stays where it is unless its documents changed. Then a document decides where it belongs, rather to its present
        customer than to another; without one it leaves a customer that now contradicts it.
        """
        if identity.documents == former.documents:
            return customer_id, ResolutionReason.SOURCE_KEY
        matching = self.matching(identity, record_id)
        if customer_id in matching:
            return customer_id, ResolutionReason.SOURCE_KEY
        if matching:
            return matching[0], ResolutionReason.IDENTITY_DOCUMENT
        if self._contradict(customer_id, record_id, identity):
            return None, ResolutionReason.NEW_CUSTOMER
        return customer_id, ResolutionReason.SOURCE_KEY
