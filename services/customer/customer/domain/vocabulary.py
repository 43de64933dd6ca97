"""The words of the customer master, numbered as in its contracts."""

from enum import IntEnum


class Attribute(IntEnum):
    """What a source may state about a party. PARTY_KIND has no rank of its own."""

    PARTY_KIND = 0
    NAME = 1
    BIRTH_DATE = 2
    SEX = 3
    IDENTIFIER = 4
    PHONE = 5
    EMAIL = 6
    ADDRESS = 7
    LANGUAGE = 8
    TIME_ZONE = 9
    OCCUPATION = 10
    EMPLOYMENT = 11
    DEMOGRAPHICS = 12
    ADDITIONAL_ADDRESS = 13
    ROLE = 14


class PartyKind(IntEnum):
    """Kinds of parties."""

    PERSON = 1
    ORGANISATION = 2


class IdentifierScheme(IntEnum):
    """Schemes of identity documents and registrations."""

    NATIONAL_ID = 1
    PASSPORT = 2
    PERMIT = 3
    DRIVING_LICENCE = 4
    ORGANISATION_REGISTRATION = 5
    LEI = 6
    TAX_NUMBER = 7


class SurvivorshipRule(IntEnum):
    """What decided for a value against its rivals. VALID and RANK name the part of the trust that decided."""

    ONLY_VALUE = 1
    VALID = 2
    RANK = 3
    RECENCY = 4
    TIE = 5
    PIN = 6
    VERIFIED = 7
    TRUST = 8
    FREQUENCY = 9
    COMPLETENESS = 10


class VerificationMethod(IntEnum):
    """Ways to verify."""

    DOCUMENT_SEEN = 1
    REGISTRY = 2
    ELECTRONIC = 3
    CODE_SENT = 4


class ResolutionReason(IntEnum):
    """Why a record belongs to its customer."""

    NEW_CUSTOMER = 1
    SOURCE_KEY = 2
    IDENTITY_DOCUMENT = 3
    MATCH_WEIGHT = 4
    STEWARD = 5
    MERGE = 6
    UNMERGE = 7


class LinkOrigin(IntEnum):
    """Who decided on a link. What was decided by hand is never undone by the platform."""

    AUTO = 1
    MANUAL = 2


class MoveReason(IntEnum):
    """Why records went to another customer, as `records_moved` says it."""

    MERGE = 1
    UNMERGE = 2
    RELINK = 3


class Outcome(IntEnum):
    """What became of an item of an intake."""

    CREATED = 1
    UPDATED = 2
    UNCHANGED = 3
    STALE = 4
    REJECTED = 5
