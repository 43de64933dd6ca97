"""Publishes changed customers: their public state, and their quality where it enters another band. In the change's unit."""

import asyncio
from collections.abc import Sequence

from chassis.unit_of_work import UnitOfWork
from customer import published
from customer.domain.golden import Golden, golden
from customer.domain.quality import Quality, QualityStandard, assess
from customer.domain.survivorship import Policy
from customer.domain.vocabulary import ResolutionReason
from customer.statements import view
from customer.store import quality as quality_store
from customer.store.customers import CustomerRow
from customer.store.quality import Remembered
from customer.store.records import Member
from customer.survivorship_standard import quality_standard

AT_ONCE_MAX = 25
"""Customers between which the event loop turns."""
Changed = Sequence[tuple[CustomerRow, Sequence[Member]]]


async def customers_changed(unit: UnitOfWork, policy: Policy, changed: Changed) -> list[Golden]:
    """Publishes customers, each in its new state, with all of its live records.

    Args:
        unit: of the change. Records, links and the rows of the customers are written.
        policy: in force at `unit.now`.
        changed: the customers' rows with their new versions, and their members.

    Returns:
        What is believed of each.
    """
    assessed = []
    for place, (row, members) in enumerate(changed):
        if place % AT_ONCE_MAX == AT_ONCE_MAX - 1:
            await asyncio.sleep(0)
        believed = golden([view(member) for member in members], policy, unit.now)
        unit.publish(published.customer_changed(row, members, believed, unit.now, unit.epoch))
        assessed.append((row, members, believed))
    await _publish_qualities(unit, assessed)
    return [believed for _, _, believed in assessed]


async def qualities_changed(unit: UnitOfWork, policy: Policy, changed: Changed) -> None:
    """Publishes the quality of customers of whom only what they hold has changed. The caller has locked them."""
    await _publish_qualities(
        unit, [(row, members, golden([view(member) for member in members], policy, unit.now)) for row, members in changed]
    )


async def _publish_qualities(unit: UnitOfWork, assessed: Sequence[tuple[CustomerRow, Sequence[Member], Golden]]) -> None:
    connection, standard = unit.connection, quality_standard()
    known_ids = [row.customer_id for row, _, _ in assessed if row.version > 1]  # a new customer has neither past nor holdings
    holdings = await quality_store.holding_kinds(connection, known_ids, None, unit.now.date()) if known_ids else {}
    before = await quality_store.remembered(connection, known_ids) if known_ids else {}
    matched = [member.record_id for _, members, _ in assessed for member in members if by_match(member)]
    weights = await quality_store.link_weights_bits(connection, matched) if matched else {}
    crossed = []
    for row, _, believed in assessed:
        quality = assess(believed, holdings.get(row.customer_id, ()), weights, standard, unit.now)
        former = before.get(row.customer_id, Remembered())
        if _crosses(former, quality, standard):
            next_one = Remembered(former.version + 1, quality.completeness_percent, quality.credibility_percent)
            crossed.append((row.customer_id, next_one))
            unit.publish(published.quality_changed(row.customer_id, next_one, unit.epoch))
    if crossed:
        await quality_store.remember(connection, crossed)


def by_match(member: Member) -> bool:
    """Whether a record belongs to its customer by the weight of a match alone."""
    return member.resolution_reason == ResolutionReason.MATCH_WEIGHT


def _crosses(former: Remembered, quality: Quality, standard: QualityStandard) -> bool:
    pairs = (
        (former.completeness_percent, quality.completeness_percent),
        (former.credibility_percent, quality.credibility_percent),
    )
    return any(standard.band(old) != standard.band(new) for old, new in pairs)
