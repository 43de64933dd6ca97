"""Parts of postal addresses: their standard form, and which check they fail."""

import re
from functools import lru_cache

from customer.domain import code_tables, han_names
from customer.domain.names import folded

CACHED_MAX = 20_000
_LOOSE = re.compile(r"[\s\-–]+")
_NOT_LETTERS = re.compile(r"[^a-z]")
_LATIN_SUFFIX = re.compile(r"(province|autonomousregion|municipality|sheng|shi|sar)$")


@lru_cache(CACHED_MAX)
def postal_code(code: str, country_code: str) -> tuple[str, str]:
    """A postal code as its country writes it, and why it is none; where a country's codes are not known, as stated."""
    form = code_tables.postal_form(country_code)
    if form is None:
        return code, ""
    standard = form.standard(_LOOSE.sub("", code).upper())
    return (code, "FORM_WRONG") if standard is None else (standard, "")


@lru_cache(CACHED_MAX)
def administrative_area(area: str, country_code: str) -> tuple[str, str]:
    """A province of China by its full name, `广东省` for Guangdong or 44, and the reason why it is none; elsewhere as stated."""
    if country_code != "CN":
        return area, ""
    provinces = code_tables.chinese_provinces()
    simplified = han_names.simplified("".join(area.split()))
    latin = _NOT_LETTERS.sub("", folded(area))
    for form in (simplified, simplified[:2], latin, _LATIN_SUFFIX.sub("", latin)):
        if form in provinces:
            return provinces[form], ""
    return area, "ADMINISTRATIVE_AREA_UNKNOWN"
