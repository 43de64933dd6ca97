"""Rules of relationships between parties."""

from datetime import date
from enum import IntEnum

from customer.domain import code_tables
from customer.domain.intake import Rejected

BASIS_POINTS_MAX = 10_000
HOUSEHOLD_MEMBERS_MAX = 20
"""Addresses with more people are houses, offices and homes, not households."""


class Kind(IntEnum):
    """What relates two parties, numbered as in the contracts."""

    HOUSEHOLD_MEMBER = 1
    SPOUSE = 2
    PARENT = 3
    GUARDIAN = 4
    SIBLING = 5
    RELATIVE = 6
    OWNER = 7
    OFFICER = 8
    LEGAL_REPRESENTATIVE = 9
    EMPLOYER = 10
    REFERRAL = 11
    GUARANTOR = 12


class Status(IntEnum):
    """How a relationship is known, numbered as in the contracts."""

    DISCLOSED = 1
    INFERRED = 2
    CONFIRMED = 3
    REJECTED = 4


def check(kind: int, legal_basis_code: str, share_basis_points: int, begin: date | None, end: date | None) -> None:
    """Whether what a source states of a relationship can be kept.

    Raises:
        Rejected: LEGAL_BASIS_MISSING, LEGAL_BASIS_UNKNOWN, SHARE_WITHOUT_OWNER, END_BEFORE_BEGIN.
    """
    if kind == Kind.GUARDIAN and not legal_basis_code:
        raise Rejected("legal_basis_code", "LEGAL_BASIS_MISSING", "must say on which basis in law a guardian may be known")
    if legal_basis_code and legal_basis_code not in code_tables.table("legal_bases"):
        known = ", ".join(code_tables.table("legal_bases"))
        raise Rejected("legal_basis_code", "LEGAL_BASIS_UNKNOWN", f"must be one of {known}")
    if share_basis_points and kind != Kind.OWNER:
        raise Rejected("share_basis_points", "SHARE_WITHOUT_OWNER", "only an owner has a share")
    if begin is not None and end is not None and end < begin:
        raise Rejected("end_date", "END_BEFORE_BEGIN", "must not lie before begin_date")


def status_after(stated: Status, before: Status | None, same_content: bool) -> Status:
    """The status of a relationship that its source states again: a steward's decision holds while the content is the same."""
    return before if before is not None and same_content else stated
