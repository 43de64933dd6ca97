"""What loyalty can say again, from its own tables."""

import json
import uuid

from chassis.database import Connection
from chassis.outbox import Event
from chassis.republish import Republisher
from loyalty.domain.ledger.types import AccountKind, OperationKind
from loyalty.store import accounts, ledger
from loyalty.store.messages import account_changed, points_posted


async def account_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """States of the accounts, by id."""
    rows = await accounts.page_after(connection, uuid.UUID(cursor or "0" * 32), limit)
    events = [
        account_changed(
            row["account_id"], row["holder_customer_id"], row["parent_account_id"], row["institution_ids"],
            row["status"], epoch=row["epoch"], version=row["version"],
        )
        for row in rows
    ]  # fmt: skip
    return events, str(rows[-1]["account_id"]) if len(rows) == limit else None


async def points_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """Facts of the ledger, in its order."""
    rows = await ledger.posted_after(connection, int(cursor or 0), limit)
    events, sequences = [], set[int]()
    for row in rows:
        fields = dict(row)
        sequence, amounts = fields.pop("sequence"), fields.pop("amounts")
        if amounts is None:
            sequences.add(sequence)
            continue
        changes = {AccountKind(kind): points for kind, points in json.loads(amounts).items()}
        leading = sequence not in sequences
        events.append(points_posted(**fields | {"kind": OperationKind(row["kind"]), "changes": changes, "leading": leading}))
        sequences.add(sequence)
    return events, str(rows[-1]["sequence"]) if len(sequences) == limit else None


REPUBLISHERS = [Republisher("accounts", account_pages), Republisher("points", points_pages)]
