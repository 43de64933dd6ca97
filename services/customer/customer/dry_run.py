"""To whom a party would be resolved, as its caller may know it: the decision of the intake, without changing anything."""

from collections.abc import Mapping
from uuid import UUID

from chassis.database import Connection
from concord.customer.v1.customer_service_pb2 import ResolveCustomerResponse, ResolveRival
from concord.customer.v1.party_pb2 import Party
from customer.candidates import Evidence, Holders, evidence
from customer.core import Core
from customer.domain.blocking import blocking_keys
from customer.domain.features import Features
from customer.domain.matching import Explanation, Zone, decide, explain
from customer.domain.vocabulary import ResolutionReason
from customer.match_messages import explanation, model_name_of, zone
from customer.resolving import reason_of
from customer.store import matches
from customer.store.records import Member, visible


async def resolve(
    connection: Connection, core: Core, standard: Party, institution_id: str | None, only: UUID | None
) -> ResolveCustomerResponse:
    """What would become of a standardised party.

    An institution learns nothing of customers it has no link with: they are left out before anything is decided. Of linked ones
    it learns the outcome, but levels and bits only against its own records: others' would tell, guess by guess, what others know.

    Args:
        institution_id: of the caller; None sees all.
        only: the one customer a bound caller may learn of.
    """
    features = evidence(standard, "")
    keys = list(dict.fromkeys(core.index.blocking(kind, value) for kind, value in blocking_keys(features)))
    holders = Holders()
    await holders.read(connection, keys)
    wanted = sorted({holders.customers[record_id] for record_id in holders.of(keys)})
    found = await visible(connection, core.vault, [(customer_id, None) for customer_id in wanted]) if wanted else []
    linked = {
        customer_id: members
        for customer_id, members in zip(wanted, found, strict=True)
        if only in (None, customer_id) and any(institution_id in (None, member.institution_id) for member in members)
    }
    made = Evidence()
    known = {customer_id: {member.record_id: made.of(member) for member in members} for customer_id, members in linked.items()}
    model, population = core.models.current(), await matches.population(connection)
    decision = decide(model, features, known, population=population)
    answer = ResolveCustomerResponse(
        resolution_reason=ResolutionReason.NEW_CUSTOMER.name,
        zone=zone(decision.zone),
        link_bits=model.link_bits,
        steward_bits=model.steward_bits,
        match_model=model_name_of(model),
    )

    def shown(customer_id: UUID) -> Explanation:
        own = _own(linked[customer_id], made, institution_id)
        return max(
            (explain(model, features, one, population=population) for one in own.values()), key=lambda one: one.weight_bits
        )

    if decision.zone is Zone.LINK and decision.customer_id is not None:
        answer.customer = f"customers/{decision.customer_id}"
        answer.resolution_reason = reason_of(decision).name
        why = shown(decision.customer_id)
        answer.weight_bits = why.weight_bits
        answer.explanation.CopyFrom(explanation(why))
    for rival in decision.near:
        if rival.customer_id != decision.customer_id or decision.zone is not Zone.LINK:
            why = shown(rival.customer_id)
            answer.rivals.append(
                ResolveRival(
                    customer=f"customers/{rival.customer_id}",
                    zone=zone(rival.zone),
                    reason=rival.reason,
                    weight_bits=why.weight_bits,
                    explanation=explanation(why),
                )
            )
    return answer


def _own(members: list[Member], made: Evidence, institution_id: str | None) -> Mapping[UUID, Features]:
    return {member.record_id: made.of(member) for member in members if institution_id in (None, member.institution_id)}
