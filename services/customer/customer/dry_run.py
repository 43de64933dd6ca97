"""To whom a party would be resolved, as its caller may know it: the decision of the intake, without changing anything."""

from uuid import UUID

from chassis.database import Connection
from concord.customer.v1.customer_service_pb2 import ResolveCustomerResponse, ResolveRival
from concord.customer.v1.party_pb2 import Party
from customer.candidates import Evidence, Holders, evidence
from customer.core import Core
from customer.domain.blocking import blocking_keys
from customer.domain.matching import Zone, decide
from customer.domain.vocabulary import ResolutionReason
from customer.match_messages import explanation, model_name_of, zone
from customer.resolving import reason_of
from customer.store import matches
from customer.store.records import visible


async def resolve(
    connection: Connection, core: Core, standard: Party, institution_id: str | None, only: UUID | None
) -> ResolveCustomerResponse:
    """What would become of a standardised party.

    An institution is answered by its own records alone, as if the others' were not there: the zone that others' records put a
    question into would tell, guess by guess, what they say. So the intake, which sees all records, may decide otherwise.

    Args:
        institution_id: of the caller; None sees all.
        only: the one customer a bound caller may learn of.
    """
    features = evidence(standard, "")
    keys = list(dict.fromkeys(core.index.blocking(kind, value) for kind, value in blocking_keys(features)))
    holders = Holders()
    await holders.read(connection, keys, institution_id)
    wanted = sorted({holders.customers[record_id] for record_id in holders.of(keys)})
    wanted = [customer_id for customer_id in wanted if only in (None, customer_id)]
    found = await visible(connection, core.vault, [(customer_id, institution_id) for customer_id in wanted]) if wanted else []
    made = Evidence()
    known = {
        customer_id: {member.record_id: made.of(member) for member in members}
        for customer_id, members in zip(wanted, found, strict=True)
    }
    model, population = core.models.current(), await matches.population(connection)
    decision = decide(model, features, known, population=population)
    answer = ResolveCustomerResponse(
        resolution_reason=ResolutionReason.NEW_CUSTOMER.name,
        zone=zone(decision.zone),
        link_bits=model.link_bits,
        steward_bits=model.steward_bits,
        match_model=model_name_of(model),
    )

    if decision.zone is Zone.LINK and decision.customer_id is not None and decision.explanation is not None:
        answer.customer = f"customers/{decision.customer_id}"
        answer.resolution_reason = reason_of(decision).name
        answer.weight_bits = decision.weight_bits
        answer.explanation.CopyFrom(explanation(decision.explanation))
    for rival in decision.near:
        if rival.customer_id != decision.customer_id or decision.zone is not Zone.LINK:
            answer.rivals.append(
                ResolveRival(
                    customer=f"customers/{rival.customer_id}",
                    zone=zone(rival.zone),
                    reason=rival.reason,
                    weight_bits=rival.weight_bits,
                    explanation=explanation(rival.explanation),
                )
            )
    return answer
