"""Makes reconciliation files from what was fixed when a settlement was closed."""

import hashlib
from collections.abc import AsyncIterator

from chassis.database import Connection, Database
from loyalty.domain import settlement_file
from loyalty.domain.settlement import positions_of
from loyalty.domain.settlement_file import Totals
from loyalty.store import settlement as store
from loyalty.store import settlement_items as items_store
from loyalty.store.settlement import Batch, Span
from loyalty.store.settlement_items import FileFacts, Place

PAGE_ITEMS_MAX = 5000
"""Items a page: about 1 MB of text."""


async def spans_of(connection: Connection, batch: Batch, institution_id: str | None) -> list[Span]:
    """The spans of a closed batch in which an institution is a side; all for None."""
    spans = await store.spans_of(connection, batch.batch_id)
    if institution_id is None:
        return spans
    parties = await store.parties(connection, [span.agreement_id for span in spans])
    return [span for span in spans if institution_id in parties[span.agreement_id]]


async def page(
    connection: Connection, batch: Batch, institution_id: str, after: Place | None, limit: int = PAGE_ITEMS_MAX
) -> tuple[str, Place | None, Totals]:
    """A page of an institution's file: its text, where it ends (None for the last page) and the totals of its items.

    The last page begins when the items have ended: it holds the summary, with the totals of the whole file.
    """
    spans = await spans_of(connection, batch, institution_id)
    found, place = await items_store.page(connection, batch.currency_code, spans, after or Place(), limit)
    text = "" if after else settlement_file.header()
    text += settlement_file.text_of(settlement_file.item_rows(found, batch.currency_code))
    if len(found) == limit:
        return text, place, Totals().plus(found)
    return text + await _summary(connection, batch, institution_id), None, Totals().plus(found)


async def pages(connection: Connection, batch: Batch, institution_id: str) -> AsyncIterator[tuple[str, Totals]]:
    """All pages of a file."""
    after: Place | None = None
    while True:
        text, after, totals = await page(connection, batch, institution_id, after)
        yield text, totals
        if after is None:
            return


async def facts(database: Database, batch: Batch, institution_id: str) -> FileFacts:
    """Size, hash and control totals of a file. They are kept when it is first made."""
    async with database.connection() as connection:
        known = await items_store.file_facts(connection, batch.batch_id, institution_id)
        if known is not None:
            return known
        made = await make(connection, batch, institution_id)
        await items_store.keep_file_facts(connection, batch.batch_id, institution_id, made)
        return made


async def make(connection: Connection, batch: Batch, institution_id: str) -> FileFacts:
    """Makes a file again, for what is known of it."""
    digest, size_bytes, rows_count, totals = hashlib.sha256(), 0, 0, Totals()
    async for text, added in pages(connection, batch, institution_id):
        content = text.encode()
        digest.update(content)
        size_bytes += len(content)
        rows_count += text.count("\r\n")
        totals = totals.and_also(added)
    return FileFacts(digest.digest(), size_bytes, rows_count, totals)


async def _summary(connection: Connection, batch: Batch, institution_id: str) -> str:
    """What follows the items. The totals are those of the lines: they count every item once."""
    assert batch.cut_off_sequence is not None
    assert batch.cut_off_hash is not None
    lines = [line for line in await store.lines(connection, batch.batch_id) if institution_id in (line.payer, line.payee)]
    pairs = [state.pair for state in await store.pairs(connection, batch.batch_id)]
    mine = [pair for pair in pairs if institution_id in (pair.first, pair.second)]
    leading = [line for line in lines if line.kind in settlement_file.LEADING]
    totals = Totals(
        sum(line.items_count for line in leading),
        sum(line.points for line in leading),
        sum((line.amount for line in leading), Totals().amount),
    )
    rows = settlement_file.summary_rows(
        lines, mine, positions_of(mine)[institution_id], totals, institution_id, batch.currency_code,
        batch.cut_off_sequence, batch.cut_off_hash,
    )  # fmt: skip
    return settlement_file.text_of(rows)
