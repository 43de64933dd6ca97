"""The kinds of things the rules speak of, numbered as in `concord.contact.v1` and `concord.common.v1`."""

import enum

CHANNEL_INBOX = 1
"""The message inbox, kept by this service itself: the one channel that is connected."""
CONNECTED_CHANNELS = frozenset({CHANNEL_INBOX})


class Direction(enum.IntEnum):
    """Who began a contact."""

    INBOUND = 1
    OUTBOUND = 2


class Purpose(enum.IntEnum):
    """What a contact is for."""

    UNSPECIFIED = 0
    MARKETING = 1
    SALES = 2
    SERVICE = 3


class State(enum.IntEnum):
    """How far a contact got."""

    RESERVED = 1
    SENT = 2
    DELIVERED = 3
    READ = 4
    FAILED = 5
    UNKNOWN = 6
    RELEASED = 7


class Permission(enum.IntEnum):
    """What a customer said about being contacted."""

    GRANTED = 1
    DENIED = 2


CAPPED_PURPOSES = frozenset({Purpose.MARKETING, Purpose.SALES})
"""They need the customer's permission, are capped, and count against the caps. Service is none of these."""
COUNTED_STATES = frozenset({State.RESERVED, State.SENT, State.DELIVERED, State.READ, State.UNKNOWN})
"""Contacts that use a slot: also those which may have arrived."""
REACHING_STATES = COUNTED_STATES - {State.RESERVED}
"""Contacts that took place, or may have."""
HOLDING_STATES = COUNTED_STATES
"""A touch in one of these holds its slot: asked again, it gets the same answer."""
