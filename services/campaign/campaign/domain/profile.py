"""What is known of a customer, as an audience rule sees it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

NO_RECORD = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Profile:
    """A customer linked with the campaign's institution. What is not known has no key.

    Args:
        customer_id: the customer.
        numbers: `birth_year`, `loyalty:alliance`, `points_balance:shop`… as `audience.profile_key` says.
        texts: `sex`, `country`, `customer_level:alliance`…
        permitted: whether the customer permits the campaign's institution marketing in the channel asked for.
        restricted: whether nothing may be done with the customer: it meets no rule.
        record_id: the oldest record that the institution has of the customer.
    """

    customer_id: uuid.UUID
    numbers: Mapping[str, float]
    texts: Mapping[str, str]
    permitted: bool = False
    restricted: bool = False
    record_id: uuid.UUID = NO_RECORD
