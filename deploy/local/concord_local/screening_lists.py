"""`concord load screening`: a list of sanctioned or exposed parties from a file, as a new version in force."""

import asyncio
import csv
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import click

from concord_local.api import Display, Gateway, Json

COLUMNS = ("entry_id", "names", "birth_dates", "country_codes", "organisation")
SEPARATOR = "|"
ENTRIES_A_REQUEST = 500
_BIRTH = re.compile(r"\d{4}(-\d{2}-\d{2})?")
_COUNTRY = re.compile(r"[A-Z]{2}")


class BadRow(Exception):
    """A row of the file is not as documented; the text names row, column and what would be right."""


def entries(path: Path) -> Iterator[Json]:
    """The entries of a file.

    Raises:
        BadRow: naming the row, the column and what would be right.
    """
    row_number = 1
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := set(COLUMNS[:2]) - set(reader.fieldnames or ()):
                there = ", ".join(sorted(missing))
                raise BadRow(f"the first line must name the columns {', '.join(COLUMNS)}; there is no {there}")
            for row_number, row in enumerate(reader, 2):
                entry = _entry(row_number, row)
                if entry["entryId"] in seen:
                    raise BadRow(f"row {row_number}, entry_id: stands twice in the file; an entry must stand once")
                seen.add(entry["entryId"])
                yield entry
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadRow(f"after row {row_number}: not a CSV file in UTF-8; save it as such") from error


def _entry(number: int, row: dict[str, str | None]) -> Json:
    def parts(column: str) -> list[str]:
        return [part.strip() for part in (row.get(column) or "").split(SEPARATOR) if part.strip()]

    entry_id, names = (row.get("entry_id") or "").strip(), parts("names")
    births, countries = parts("birth_dates"), parts("country_codes")
    if not entry_id:
        raise BadRow(f"row {number}, entry_id: is empty; give the list's own id")
    if not names:
        raise BadRow(f"row {number}, names: is empty; give all spellings, separated by {SEPARATOR}")
    if not all(map(_BIRTH.fullmatch, births)):
        raise BadRow(f"row {number}, birth_dates: must be days or years such as 1962-03-01{SEPARATOR}1963")
    if not all(map(_COUNTRY.fullmatch, countries)):
        raise BadRow(f"row {number}, country_codes: must be ISO 3166-1 alpha-2 codes such as IR{SEPARATOR}KP")
    organisation = (row.get("organisation") or "").strip().lower() in ("true", "1", "yes")
    return {"entryId": entry_id, "names": names, "birthDates": births, "countryCodes": countries, "organisation": organisation}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--list", "list_id", required=True, help="The list's id, such as un-sanctions.")
@click.option("--list-version", help="The version's name; today's date when not given.")
@click.option(
    "--topic", type=click.Choice(["sanctions", "politically_exposed", "adverse"]), default="sanctions", show_default=True,
    help="What the list is about.",
)  # fmt: skip
def screening(file: Path, list_id: str, list_version: str | None, topic: str) -> None:
    """Load a list that customers are screened against, and put it in force.

    \b
    FILE is CSV in UTF-8 with a first line of columns:
      entry_id        the list's own id                       QDi.001
      names           all spellings, any script, by |         Wang Wei|王伟
      birth_dates     days or years, by | (may be empty)      1962-03-01|1963
      country_codes   ISO 3166-1 alpha-2, by | (may be empty) KP|IR
      organisation    true for anything but a person          false

    The version becomes active when all entries are in: nobody is screened against half a list. Approved customers who
    resemble a new or changed entry get a KYC case by themselves.
    """
    try:
        wanted = list(entries(file))
    except BadRow as why:
        raise click.ClickException(f"{file.name}: {why}. Nothing was loaded.") from why
    if not wanted:
        raise click.ClickException(f"{file.name}: has no entries. Nothing was loaded.")
    version = list_version or date.today().isoformat()  # noqa: DTZ011
    asyncio.run(_load(list_id, version, topic, wanted))
    click.echo(f"{len(wanted)} entries of {list_id} are in force as version {version}.")


async def _load(list_id: str, version: str, topic: str, wanted: list[Json]) -> None:
    name = f"/v1/screeningLists/{list_id}/versions/{version}"
    show = Display()
    async with Gateway.of_running_platform() as gateway:
        token = gateway.token("operator")
        body = {"version": version, "topic": f"SCREENING_TOPIC_{topic.upper()}"}
        await gateway.create(f"/v1/screeningLists/{list_id}/versions", token, body)
        with show.progress:
            task = show.step("entries", len(wanted))
            for first in range(0, len(wanted), ENTRIES_A_REQUEST):
                part = wanted[first : first + ENTRIES_A_REQUEST]
                await gateway.post(f"{name}:addEntries", token, {"entries": part})
                task.advance(len(part))
        await gateway.post(f"{name}:activate", token, {})
