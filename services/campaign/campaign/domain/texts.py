"""Rules for texts that people write."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LINE_CHARACTERS = str.maketrans("", "", "\n\r\t")


def is_plain(text: str, *, lines: bool = False) -> bool:
    """Whether a text is free of control characters; with `lines` it may have line breaks and tabs."""
    return not _CONTROL.search(text.translate(_LINE_CHARACTERS) if lines else text)
