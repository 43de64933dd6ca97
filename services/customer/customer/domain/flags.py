"""Reasons for which a value fails a check, and what would be right. A failing value is kept and believed less, never dropped."""

from dataclasses import dataclass

DESCRIPTIONS = {
    "ADMINISTRATIVE_AREA_UNKNOWN": "should be a province of the country, by name or code",
    "AGE_IMPLAUSIBLE": "should be the birth date of somebody alive",
    "BIRTH_DATE_DIFFERS": "should be the birth date that the identity document contains",
    "CHECK_DIGIT_WRONG": "should end with the right check digit",
    "CODE_UNKNOWN": "should be a code of the code table",
    "COMPONENT_WRONG": "should hold a region, date and serial number that exist",
    "COUNTRY_UNKNOWN": "should be an ISO 3166-1 alpha-2 code",
    "DATE_IMPOSSIBLE": "should be a day that exists, such as 1996-02-29",
    "DATE_IN_FUTURE": "should not lie in the future",
    "END_BEFORE_BEGIN": "should not end before it begins",
    "EXPIRED": "should still be valid",
    "FORM_WRONG": "should have the form its kind and country prescribe",
    "LANGUAGE_UNKNOWN": "should begin with a language of ISO 639",
    "LENGTH_WRONG": "should have the length its kind and country prescribe",
    "NOT_A_NAME": "should hold a name",
    "PLACEHOLDER": "should be a value of this party, not one that stands for an unknown value",
    "SEX_DIFFERS": "should be the sex that the identity document contains",
    "TIME_ZONE_UNKNOWN": "should be an IANA time zone, such as Asia/Shanghai",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """A value that failed a check: where it stands in the party, and which check. Holds no value."""

    field: str
    reason: str

    @property
    def description(self) -> str:
        """What would be right, for people."""
        return DESCRIPTIONS[self.reason]
