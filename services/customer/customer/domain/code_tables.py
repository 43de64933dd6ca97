"""Code tables, which are data: `customer/data/*.csv` and `postal.yaml`. Loaded once, when first asked."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

COUNTRY_ALIASES = {"UK": "GB", "EL": "GR"}
"""Codes in wide use beside those of ISO 3166."""


@cache
def table(name: str) -> dict[str, str]:
    """A code table: what each code means; empty where the table does not say. `name` is the file's, without its ending."""
    text = resources.files("customer").joinpath(f"data/{name}.csv").read_text(encoding="utf-8")
    rows = csv.reader(line for line in text.splitlines() if line and not line.startswith("#"))
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}


def is_country(code: str) -> bool:
    """Whether a code is one of ISO 3166-1 alpha-2."""
    return code in table("countries")


def is_currency(code: str) -> bool:
    """Whether a code is one of ISO 4217."""
    return code in table("currencies")


def is_industry(code: str) -> bool:
    """Whether a code is a section or division of ISIC Rev. 4, or a group or class (3 or 4 digits) of a known division."""
    return code in table("industries") or (len(code) in (3, 4) and code.isdecimal() and code[:2] in table("industries"))


def language(tag: str) -> str:
    """A BCP 47 tag as it is usually written: `zh-Hans-CN`."""
    head, *rest = tag.replace("_", "-").split("-")
    parts = [head.lower()]
    for part in rest:
        parts.append(part.title() if len(part) == 4 and part.isalpha() else part.upper() if len(part) == 2 else part.lower())
    return "-".join(parts)


def is_language(tag: str) -> bool:
    """Whether the language of a tag is one of ISO 639-1, or has three letters (ISO 639-3, of which there is no table here)."""
    head = tag.partition("-")[0]
    return head in table("languages") or (len(head) == 3 and head.isalpha())


@dataclass(frozen=True, slots=True)
class PostalForm:
    """How a country's postal codes look once spaces and hyphens are out, and how they are written."""

    pattern: re.Pattern[str]
    written: str

    def standard(self, compact: str) -> str | None:
        """The code as it is written; None when it is none."""
        match = self.pattern.fullmatch(compact)
        if match is None:
            return None
        return match.expand(self.written) if self.written else compact


@cache
def _postal() -> Any:
    return yaml.safe_load(resources.files("customer").joinpath("data/postal.yaml").read_text(encoding="utf-8"))


@cache
def postal_form(country_code: str) -> PostalForm | None:
    """How postal codes of a country look; None where that is not known."""
    form = _postal()["postal_codes"].get(country_code)
    return PostalForm(re.compile(form["pattern"]), form.get("written", "")) if form else None


@cache
def chinese_provinces() -> dict[str, str]:
    """Full names of China's provinces by code (GB/T 2260), full and short name, and Latin name without spaces and case."""
    known: dict[str, str] = {}
    for code, full, *others in _postal()["chinese_provinces"]:
        known |= {str(code): full, full: full} | {str(other): full for other in others}
    return known
