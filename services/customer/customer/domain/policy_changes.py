"""What another survivorship policy would change, counted over customers. Holds no values. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from customer.domain.golden import Golden
from customer.domain.vocabulary import Attribute, SurvivorshipRule

EXAMPLES_MAX = 10
"""Examples kept for each attribute."""


class Difference(NamedTuple):
    """An attribute whose golden value, or the source of it, would be another."""

    attribute: Attribute
    value_differs: bool
    from_source: str
    to_source: str
    rule: SurvivorshipRule


def differences(before: Golden, after: Golden) -> list[Difference]:
    """Attribute by attribute, the first value of each. Both are of the same records."""
    found = []
    for attribute, values in before.items():
        old, new = values[0], after[attribute][0]
        if old.key != new.key or old.record.source_system != new.record.source_system:
            sources = old.record.source_system, new.record.source_system
            found.append(Difference(attribute, old.key != new.key, *sources, new.rule))
    return found


def counted(result: Mapping[str, Any], changed: Mapping[UUID, list[Difference]]) -> dict[str, Any]:
    """The counts so far and those of further customers, as they are kept between pages."""
    attributes: dict[str, Any] = {key: dict(counts) for key, counts in result.get("attributes", {}).items()}
    customers = int(result.get("customers_changed", 0))
    for customer_id, found in changed.items():
        customers += any(one.value_differs for one in found)
        for one in found:
            counts = attributes.setdefault(str(int(one.attribute)), {"values": 0, "sources": 0, "examples": []})
            counts["values" if one.value_differs else "sources"] += 1
            if one.value_differs and len(counts["examples"]) < EXAMPLES_MAX:
                example = [str(customer_id), one.from_source, one.to_source, int(one.rule)]
                counts["examples"] = [*counts["examples"], example]
    return {"customers_changed": customers, "attributes": attributes}
