"""What two persons decide together: who acts, and for which side. Pure."""

from dataclasses import dataclass

OPERATOR = "-"
"""The side of the alliance's operator, who acts for no institution."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts, and for which side: an institution, or OPERATOR."""

    subject: str
    side: str


class Refused(Exception):
    """A rule says no: `reason` in the platform's words, `message` what would be right."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def side_name(side: str) -> str:
    """How a side is named to people."""
    return "the operator" if side == OPERATOR else f"institutions/{side}"
