"""Is it the same party? Hard rules first, then weights in bits (Fellegi and Sunter), then guards; link, steward or new."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import product
from uuid import UUID

from customer.domain.blocking import blocking_keys
from customer.domain.comparisons import (
    AddressLevel,
    DateLevel,
    NameLevel,
    NumberLevel,
    address_level,
    date_level,
    document_level,
    email_level,
    given_close,
    levels,
    name_level,
    one_slip,
    phone_level,
)
from customer.domain.features import DocumentNumber, Features
from customer.domain.match_model import BITS_DIGITS, Model, prior_bits
from customer.domain.sufficiency import too_little

__all__ = [
    "Contribution", "Decision", "Explanation", "Features", "Model", "Rival", "Zone", "blocking_keys", "decide", "explain",
]  # fmt: skip

RECORDS_OF_ONE_SOURCE_MAX = 50
"""A source states a party a few times at most: more in one customer is a cluster that grows wild."""
RIVALS_MAX = 10
NAME_AND_DATE_MARGIN_BITS = 6.0
"""By so much a link must pass the threshold when name and birth date agree and nothing else does."""


class Zone(IntEnum):
    """What is to be done with a record."""

    NEW = 0
    STEWARD = 1
    LINK = 2


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one attribute says, in bits. Holds no value."""

    attribute: str
    level: str
    bits: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why two records are, or are not, one party. The contributions, the prior among them, add up to the weight.

    Args:
        weight_bits: log2 of the odds that they are one party.
        contributions: the prior first.
        rule: the hard rule that decides whatever the weight is: SAME_DOCUMENT, DOCUMENT_OF_ANOTHER (the same document, but name
            and birth date differ), DIFFERENT_DOCUMENT, DIFFERENT_KIND; empty when none does.
        compared: the ids of the two records, when it is kept: only who may see both may see it. Empty: not known which.
    """

    weight_bits: float
    contributions: tuple[Contribution, ...]
    rule: str = ""
    compared: tuple[UUID, ...] = ()

    def between(self, one: UUID, other: UUID) -> "Explanation":
        """The same, saying which records it is about."""
        return replace(self, compared=(one, other))

    def to_bytes(self) -> bytes:
        """For keeping beside a link."""
        contributions = [[c.attribute, c.level, c.bits] for c in self.contributions]
        content = [self.weight_bits, self.rule, contributions, [record_id.hex for record_id in self.compared]]
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Explanation":
        """What `to_bytes` kept."""
        weight, rule, contributions, *more = json.loads(content)
        compared = tuple(UUID(hex=record_id) for record_id in more[0]) if more else ()
        return cls(weight, tuple(Contribution(*contribution) for contribution in contributions), rule, compared)


@dataclass(frozen=True, slots=True)
class Rival:
    """A customer that a record may belong to, judged by its best record."""

    customer_id: UUID
    record_id: UUID
    zone: Zone
    weight_bits: float
    explanation: Explanation
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """To whom a record belongs.

    Args:
        zone: LINK to `customer_id`; STEWARD: a new customer, and a steward looks at both; NEW.
        reason: in upper snake case, why this zone.
        rivals: other customers that are at least worth a steward's look, best first.
        bridges: of these, the ones that are this party too by the same rules: duplicates of `customer_id`.
    """

    zone: Zone
    reason: str
    customer_id: UUID | None = None
    record_id: UUID | None = None
    weight_bits: float = 0.0
    explanation: Explanation | None = None
    rivals: tuple[Rival, ...] = ()
    bridges: tuple[UUID, ...] = ()

    @property
    def near(self) -> tuple[Rival, ...]:
        """All customers that come near, the best one first."""
        if self.customer_id is None or self.record_id is None or self.explanation is None:
            return self.rivals
        best = Rival(self.customer_id, self.record_id, self.zone, self.weight_bits, self.explanation, self.reason)
        return (best, *self.rivals)


# ---- two records


def explain(model: Model, one: Features, other: Features, *, population: int = 0) -> Explanation:
    """What speaks for and against two records being one party; symmetric.

    Args:
        population: about how many customers there are.
    """
    found = levels(one, other)
    contributions = [Contribution("prior", "POPULATION", round(prior_bits(population), BITS_DIGITS))]
    for attribute, level in found.items():
        if isinstance(level, NameLevel):
            bits = round(model.name_bits(one.names, other.names, level), BITS_DIGITS)
        else:
            bits = model.bits(attribute, level)
        contributions.append(Contribution(attribute, level.name, bits))
    weight = round(sum([contribution.bits for contribution in contributions]), BITS_DIGITS)
    return Explanation(weight, tuple(contributions), _rule(one, other, found.get("name"), found.get("birth_date")))


def _rule(one: Features, other: Features, name: int | None, born: int | None) -> str:
    if one.party_kind != other.party_kind:
        return "DIFFERENT_KIND"
    if not (one.documents and other.documents):
        return ""
    if _different_documents(one.documents, other.documents):
        return "DIFFERENT_DOCUMENT"
    name_compatible = name is None or name >= NameLevel.FAMILY_SAME
    born_compatible = born is None or born >= DateLevel.ONE_EDIT
    shared = [document for document in one.documents & other.documents if document.valid]
    if any(document.checked for document in shared):
        # Stated and alike, or not stated at all: one of the two is enough beside a number with a check digit.
        return "SAME_DOCUMENT" if (name_compatible and born_compatible) or _name_or_born(name, born) else "DOCUMENT_OF_ANOTHER"
    if shared and name_compatible and born_compatible and (name is not None or born is not None):
        return "SAME_DOCUMENT"
    return ""


def _name_or_born(name: int | None, born: int | None) -> bool:
    """Whether a name or a birth date is stated by both, and compatible."""
    return (name is not None and name >= NameLevel.FAMILY_SAME) or (born is not None and born >= DateLevel.ONE_EDIT)


def _different_documents(one: Collection[DocumentNumber], other: Collection[DocumentNumber]) -> bool:
    """Whether a scheme with a check digit has valid numbers on both sides, and none in common."""
    mine, theirs = _numbers(one), _numbers(other)
    return any(numbers.isdisjoint(theirs.get(scheme, numbers)) for scheme, numbers in mine.items())


def _numbers(documents: Collection[DocumentNumber]) -> dict[tuple[int, str], set[str]]:
    numbers: dict[tuple[int, str], set[str]] = {}
    for document in documents:
        if document.checked:
            numbers.setdefault((document.scheme, document.country_code), set()).add(document.number)
    return numbers


# ---- a record and the customers


def decide(
    model: Model,
    features: Features,
    candidates: Mapping[UUID, Mapping[UUID, Features]],
    *,
    population: int,
    never_link: Collection[UUID] = (),
) -> Decision:
    """To which of the candidates a record belongs.

    Args:
        candidates: by customer, the evidence in all its live records.
        population: about how many customers there are.
        never_link: customers and records that a steward said this record does not belong with.
    """
    never = frozenset(never_link)
    judged = [
        _judged(model, features, customer_id, members, population)
        for customer_id, members in candidates.items()
        if members and customer_id not in never and never.isdisjoint(members)
    ]
    # The oldest of equals, so that the same question always has the same answer.
    ranked = sorted((rival for rival in judged if rival.zone), key=_rank)[: RIVALS_MAX + 1]
    if not ranked:
        return Decision(Zone.NEW, "NO_CANDIDATE" if not judged else "BELOW_STEWARD")
    best, rivals = ranked[0], tuple(ranked[1:])
    linked = {best.customer_id: dict(candidates[best.customer_id])}
    bridges = []
    for rival in rivals:
        members = candidates[rival.customer_id]
        if best.zone is rival.zone is Zone.LINK and may_join(model, linked[best.customer_id], members):
            bridges.append(rival.customer_id)
            linked[best.customer_id] |= members
    return Decision(
        best.zone, best.reason, best.customer_id, best.record_id, best.weight_bits, best.explanation, rivals, tuple(bridges)
    )


def _rank(rival: Rival) -> tuple[int, bool, float, UUID]:
    return (-rival.zone, rival.reason != "IDENTITY_DOCUMENT", -rival.weight_bits, rival.customer_id)


def _judged(model: Model, features: Features, customer_id: UUID, members: Mapping[UUID, Features], population: int) -> Rival:
    explained = {record_id: explain(model, features, other, population=population) for record_id, other in members.items()}
    record_id, best = max(
        explained.items(), key=lambda item: (item[1].rule == "SAME_DOCUMENT", item[1].weight_bits, -item[0].int)
    )
    same_document = best.rule == "SAME_DOCUMENT"
    rules = {explanation.rule for explanation in explained.values()}
    if "DIFFERENT_KIND" in rules:
        zone, reason = Zone.NEW, "DIFFERENT_KIND"
    elif same_document or best.weight_bits >= model.link_bits:
        nearest = sorted(explained, key=lambda record: (-explained[record].weight_bits, record))
        objection = _guard(model, features, [members[record] for record in nearest])
        if not objection and not same_document and best.weight_bits < model.link_bits + NAME_AND_DATE_MARGIN_BITS:
            # Of a common name two people are born on one day somewhere.
            objection = "NOTHING_ELSE_AGREES" if _nothing_else_agrees(features, members[record_id]) else ""
        if not objection and not same_document:
            objection = _lacking(
                model, features, [members[one] for one in nearest if explained[one].weight_bits >= model.link_bits]
            )
        zone = Zone.STEWARD if objection else Zone.LINK
        reason = objection or ("IDENTITY_DOCUMENT" if same_document else "WEIGHT")
    elif "DOCUMENT_OF_ANOTHER" in rules:
        zone, reason = Zone.STEWARD, "DOCUMENT_OF_ANOTHER"
    elif best.weight_bits >= model.steward_bits:
        zone, reason = Zone.STEWARD, "BELOW_LINK"
    else:
        zone, reason = Zone.NEW, "BELOW_STEWARD"
    return Rival(customer_id, record_id, zone, best.weight_bits, best, reason)


def _lacking(model: Model, features: Features, near: Sequence[Features]) -> str:
    """What is missing to link a record with any of these; of the nearest, if it is missing with all."""
    found = ""
    for other in near:
        missing = too_little(features, other, levels(features, other), is_given_alike=_is_given_alike(model, features, other))
        if not missing:
            return ""
        found = found or missing
    return found


def may_join(model: Model, some: Mapping[UUID, Features], others: Mapping[UUID, Features]) -> bool:
    """Whether the records of two customers can be one customer's without any guard objecting."""
    return not any(guard(model, features, others) for features in some.values())


def guard(model: Model, features: Features, members: Mapping[UUID, Features]) -> str:
    """Why a record must not join, or stay with, these records automatically; empty when nothing speaks against it."""
    return _guard(model, features, _nearest(model, features, members))


def _nearest(model: Model, features: Features, members: Mapping[UUID, Features]) -> list[Features]:
    weights = {record_id: explain(model, features, other).weight_bits for record_id, other in members.items()}
    return [members[record_id] for record_id in sorted(members, key=lambda record_id: (-weights[record_id], record_id))]


def _guard(model: Model, features: Features, members: Sequence[Features]) -> str:
    """Why a record must not join a customer automatically, however much it weighs; empty when nothing speaks against it.

    Args:
        members: the customer's records, the most similar first. Of birth date and given name, the first that states them counts:
            one bad record does not keep the good ones apart, and one that is silent does not bring two people together.
    """
    if sum(other.source == features.source for other in members) >= RECORDS_OF_ONE_SOURCE_MAX:
        return "CLUSTER_TOO_LARGE"
    if any(_different_documents(features.documents, other.documents) for other in members):
        return "DIFFERENT_DOCUMENT"
    if members and _one_document(features, members[0]):
        return ""
    dated = next((other for other in members if features.birth_date and other.birth_date), None)
    if dated is not None and not _one_document(features, dated) and _is_another_birth(features.birth_date, dated.birth_date):
        return "BIRTH_DATE_DIFFERS"  # father and son of one name
    named = next((other for other in members if _is_complete(features) and _is_complete(other)), None)
    if named is not None and not _one_document(features, named) and _may_be_siblings(model, features, named):
        return "GIVEN_NAME_DIFFERS"  # twins, and all who share a household
    return ""


def _is_another_birth(one: str, other: str) -> bool:
    """Whether two dates are no slip apart. Day and month alone are no evidence here: some are born on a parent's birthday."""
    level = date_level(one, other)
    return level is not None and (level <= DateLevel.ONE_PART_SAME or (level < DateLevel.ONE_EDIT and one[:4] != other[:4]))


def _nothing_else_agrees(one: Features, other: Features) -> bool:
    """Whether two or more of documents, contact points and addresses can be compared, and every one of them differs."""
    compared = (
        document_level(one.documents, other.documents),
        phone_level(one.phones, other.phones),
        email_level(one.emails, other.emails),
        address_level(one.addresses, other.addresses),
    )
    stated = [level for level in compared if level is not None]
    return len(stated) > 1 and all(
        level <= 0 or level is AddressLevel.AREA_ONLY or level is AddressLevel.PARTLY for level in stated
    )


def _one_document(one: Features, other: Features) -> bool:
    return document_level(one.documents, other.documents) == NumberLevel.SAME or one_slip(one.documents, other.documents)


def _is_complete(features: Features) -> bool:
    return (
        features.names.undivided or bool(features.names.han) or any(form.given and form.family for form in features.names.forms)
    )


def _is_given_alike(model: Model, one: Features, other: Features) -> bool:
    """Whether both state a given name, and it agrees, perhaps but for a slip."""
    if _is_complete(one) and _is_complete(other):
        return not _may_be_siblings(model, one, other)
    if len(one.names.forms) != 1 or len(other.names.forms) != 1:
        return False
    [mine], [theirs] = one.names.forms, other.names.forms
    return bool(mine.given and theirs.given) and given_close(mine, theirs)


def _may_be_siblings(model: Model, one: Features, other: Features) -> bool:
    """Whether the given names differ, and not by a slip: of a slip, one is hardly a name that many have."""
    if one.names.han and other.names.han:
        # Another letter of the same sound is a slip of the keyboard: nobody gives two children names that sound alike.
        return one.names.han != other.names.han and set(one.names.forms).isdisjoint(other.names.forms)
    name = name_level(one.names, other.names)
    pairs = list(product(one.names.forms, other.names.forms))
    if name is not None and name >= NameLevel.SWAPPED:
        return False
    if name is NameLevel.CLOSE:
        if one.birth_date and one.birth_date == other.birth_date and not one.emails.isdisjoint(other.emails):
            return False
        return any(
            mine.family == theirs.family
            and mine.given != theirs.given
            and model.is_known("given", mine.given)
            and model.is_known("given", theirs.given)
            for mine, theirs in pairs
        )
    if len(one.names.forms) > 1 and len(other.names.forms) > 1:
        # Of two whole names the common part is the given one if it is rather one that people are given.
        shared = {form.given for form in one.names.forms} & {form.given for form in other.names.forms}
        return not any(model.term("given", part)[0] < model.term("family", part)[0] for part in shared)
    return not any(given_close(mine, theirs) for mine, theirs in pairs)
