"""Publishes changed customers: their public state, and their quality where it enters another band. In the change's unit."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from chassis.database import Connection
from chassis.unit_of_work import UnitOfWork
from customer import published
from customer.domain.golden import Golden, golden
from customer.domain.quality import Quality, QualityStandard, assess
from customer.domain.survivorship import Policy
from customer.domain.vocabulary import ResolutionReason
from customer.statements import view
from customer.store import links as link_store
from customer.store import quality as quality_store
from customer.store.customers import CustomerRow
from customer.store.quality import Remembered
from customer.store.records import Member
from customer.survivorship_standard import quality_standard

AT_ONCE_MAX = 25
"""Customers between which the event loop turns."""
Changed: TypeAlias = Sequence[tuple[CustomerRow, Sequence[Member]]]
Crossed: TypeAlias = Mapping[UUID, Remembered]
"""By customer: the qualities that have entered another band, as they are published."""
Assessed: TypeAlias = Sequence[tuple[CustomerRow, Sequence[Member], Golden]]


async def customers_changed(unit: UnitOfWork, policy: Policy, changed: Changed) -> tuple[list[Golden], Crossed]:
    """Publishes customers, each in its new state, with all of its live records, and its quality in a new band.

    Args:
        unit: of the change. Records, links and the rows of the customers are written, unless all of this is new.
        policy: in force at `unit.now`.
        changed: the customers' rows with their new versions, and their members.

    Returns:
        What is believed of each, and the qualities that are published: to be remembered in the same transaction.
    """
    assessed = []
    for place, (row, members) in enumerate(changed):
        if place % AT_ONCE_MAX == AT_ONCE_MAX - 1:
            await asyncio.sleep(0)
        believed = golden([view(member) for member in members], policy, unit.now)
        unit.publish(published.customer_changed(row, members, believed, unit.now, unit.epoch))
        assessed.append((row, members, believed))
    # A customer that this unit made has neither holdings nor a quality that was published.
    crossed = await _publish_qualities(unit, assessed, [row.customer_id for row, _, _ in assessed if row.version > 1])
    return [believed for _, _, believed in assessed], crossed


async def qualities_changed(unit: UnitOfWork, policy: Policy, changed: Changed) -> None:
    """Publishes the quality of customers of whom only what they hold has changed. The caller has locked them."""
    assessed = [(row, members, golden([view(member) for member in members], policy, unit.now)) for row, members in changed]
    await quality_store.remember(
        unit.connection, await _publish_qualities(unit, assessed, [row.customer_id for row, _ in changed])
    )


async def _publish_qualities(unit: UnitOfWork, assessed: Assessed, known_ids: Sequence[UUID]) -> Crossed:
    crossed = await crossings(unit.connection, assessed, known_ids, unit.now)
    for customer_id, quality in crossed.items():
        unit.publish(published.quality_changed(customer_id, quality, unit.epoch))
    return crossed


async def crossings(
    connection: Connection, assessed: Assessed, known_ids: Sequence[UUID], instant: datetime
) -> dict[UUID, Remembered]:
    """The qualities that have entered another band since they were published, each as the next to publish.

    Args:
        connection: of the change.
        assessed: customers with their members and what is believed of them.
        known_ids: those that may have holdings, or a quality that was published.
        instant: at which it is asked.
    """
    standard = quality_standard()
    holdings = await quality_store.holding_kinds(connection, known_ids, None, instant.date()) if known_ids else {}
    before = await quality_store.remembered(connection, known_ids) if known_ids else {}
    matched = [member.record_id for _, members, _ in assessed for member in members if by_match(member)]
    weights = await link_store.weights_bits(connection, matched)
    crossed = {}
    for row, _, believed in assessed:
        quality = assess(believed, holdings.get(row.customer_id, ()), weights, standard, instant)
        former = before.get(row.customer_id, Remembered())
        if crosses(former, quality, standard):
            crossed[row.customer_id] = Remembered(former.version + 1, quality.completeness_percent, quality.credibility_percent)
    return crossed


def by_match(member: Member) -> bool:
    """Whether a record belongs to its customer by the weight of a match alone."""
    return member.resolution_reason == ResolutionReason.MATCH_WEIGHT


def crosses(former: Remembered, quality: Quality, standard: QualityStandard) -> bool:
    """Whether a score has entered another band."""
    pairs = (
        (former.completeness_percent, quality.completeness_percent),
        (former.credibility_percent, quality.credibility_percent),
    )
    return any(standard.band(old) != standard.band(new) for old, new in pairs)
