"""Telephone numbers and e-mail addresses: their standard form, and whether they can exist."""

import unicodedata

import phonenumbers
from email_validator import EmailNotValidError, validate_email


def phone(number: str, country_code: str) -> tuple[str, bool]:
    """A number as E.164 where it is a valid one, otherwise as stated. A number without prefix is read as one of the country."""
    text = unicodedata.normalize("NFKC", number).strip()
    try:
        parsed = phonenumbers.parse(text, country_code or None)
    except phonenumbers.NumberParseException:
        return text, False
    if not phonenumbers.is_valid_number(parsed):
        return text, False
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), True


def email(address: str) -> tuple[str, bool]:
    """An address in its normal form where it is well formed, otherwise as stated. Nobody is asked whether it exists."""
    text = unicodedata.normalize("NFC", address).strip()
    try:
        return validate_email(text, check_deliverability=False).normalized, True
    except EmailNotValidError:
        return text, False
