"""What settlement publishes: facts, each once, when a batch has come to a state."""

import uuid
from collections.abc import Iterable

from chassis.outbox import Event
from concord.loyalty.v1.loyalty_events_pb2 import SettlementClosed, SettlementConfirmed, SettlementSettled
from loyalty.domain.settlement import BatchState
from loyalty.store.settlement import Batch

SETTLEMENT_CLOSED = "concord.loyalty.v1.settlement.closed"
SETTLEMENT_CONFIRMED = "concord.loyalty.v1.settlement.confirmed"
SETTLEMENT_SETTLED = "concord.loyalty.v1.settlement.settled"


def settlement_advanced(batch: Batch, institution_ids: Iterable[str]) -> Event:
    """The fact that a batch was closed, confirmed or settled; its id follows from both, so that it is one fact."""
    concerned = sorted(institution_ids)
    batch_id, currency_code = str(batch.batch_id), batch.currency_code
    message: SettlementClosed | SettlementConfirmed | SettlementSettled
    if batch.state is BatchState.CLOSED:
        event_type = SETTLEMENT_CLOSED
        message = SettlementClosed(
            settlement_id=batch_id,
            currency_code=currency_code,
            institution_ids=concerned,
            cut_off_sequence=batch.cut_off_sequence or 0,
            business_date=batch.business_date.isoformat() if batch.business_date else "",
        )
    elif batch.state is BatchState.CONFIRMED:
        event_type = SETTLEMENT_CONFIRMED
        message = SettlementConfirmed(settlement_id=batch_id, currency_code=currency_code, institution_ids=concerned)
    else:
        event_type = SETTLEMENT_SETTLED
        message = SettlementSettled(settlement_id=batch_id, currency_code=currency_code, institution_ids=concerned)
    return Event(event_type, batch_id, message, event_id=uuid.uuid5(batch.batch_id, batch.state))
