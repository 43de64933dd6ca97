"""Offers: what is said to the customer."""

from campaign.domain.audience import Violation
from campaign.domain.texts import is_plain


def violations(display_name: str, title: str, body: str) -> list[Violation]:
    """What is wrong with the texts of an offer."""
    found = [
        (field, "must be a text of one line")
        for field, text in (("display_name", display_name), ("title", title))
        if not text.strip() or not is_plain(text)
    ]
    if not body.strip() or not is_plain(body, lines=True):
        found.append(("body", "must be a text, without control characters other than line breaks and tabs"))
    return found
