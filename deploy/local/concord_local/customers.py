"""`concord load customers FILE`: a file of customers through the gateway, as a bulk import."""

import asyncio
import base64
import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from concord_local.api import Display, Gateway, Problem
from concord_local.system import Trouble

PART_BYTES = 700 << 10
"""As base64 in JSON it fits into the largest body that the gateway takes."""
POLL_SECONDS = 0.5
PARTS_IN_FLIGHT_MAX = 4
ATTEMPTS_MAX = 1_000
SHOWN_REJECTIONS_MAX = 10
FORMATS = {"csv": "IMPORT_FORMAT_CSV", "parquet": "IMPORT_FORMAT_PARQUET", "jsonl": "IMPORT_FORMAT_JSON_LINES"}
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
ENCODINGS = {"utf-8": "IMPORT_ENCODING_UTF_8", "gb18030": "IMPORT_ENCODING_GB_18030"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
ENDED = {"IMPORT_STATE_SUCCEEDED", "IMPORT_STATE_FAILED", "IMPORT_STATE_CANCELLED"}
OUTCOMES = ("created", "updated", "unchanged", "stale", "rejected")
EXIT_SOME_REJECTED, EXIT_FAILED = 1, 2

Json = dict[str, Any]
console = Console(highlight=False)


def _mapping(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Json]:
    columns = []
    for value in values:
        column, equals, field = value.rpartition("=")
        if not equals or not column.strip() or not field.strip():
            raise click.BadParameter(f"{value!r} must be COLUMN=FIELD, such as --map 'Client no=source_record_key'")
        columns.append({"column": column.strip(), "field": field.strip()})
    return columns


def _fields(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    asyncio.run(_show_fields())
    context.exit()


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--institution", required=True, help="The institution's id.")
@click.option("--source-system", required=True, help="The id of its system that the file comes from.")
@click.option("--map", "columns", multiple=True, callback=_mapping, metavar="COLUMN=FIELD", help="What a column is; FIELD may be `ignore`. Columns that are called like a field need none.")  # fmt: skip # noqa: E501
@click.option("--format", "kind", type=click.Choice(sorted(FORMATS)), help="Taken from the file's name when not given.")
@click.option("--encoding", type=click.Choice(sorted(ENCODINGS)), default="utf-8", show_default=True)
@click.option("--delimiter", type=click.Choice(sorted(DELIMITERS)), help="Of a CSV file; comma, of a .tsv file tab.")
@click.option(
    "--country", metavar="CC", default="", help="Two letters: of documents, telephone numbers and addresses without one."
)
@click.option("--observed", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="When (UTC) rows without observe_time were seen; the file's own time when not given.")  # fmt: skip # noqa: E501
@click.option("--rejections", type=click.Path(dir_okay=False, path_type=Path), help="Where rejected rows are written: FILE.rejections.csv.")  # fmt: skip # noqa: E501
@click.option("--again", is_flag=True, help="Load a file that was loaded before, instead of showing what became of it.")
@click.option("--fields", is_flag=True, is_eager=True, expose_value=False, callback=_fields, help="Show the fields that a column may be.")  # fmt: skip # noqa: E501
def customers(
    file: Path, institution: str, source_system: str, columns: list[Json], kind: str | None, encoding: str, delimiter: str | None,
    country: str, observed: datetime | None, rejections: Path | None, again: bool,
) -> None:  # fmt: skip
    """Load a file of customers: CSV with a header row, Parquet, or JSON Lines.

    \b
    One row is one record of the source system. It needs the source's own key; everything else may be left out:
      source_record_key,full_name,birth_date,national_id,phone,email,locality
      C-000042,欧阳明,1984-02-29,110105198402290025,+86 138 1234 5678,ming@example.org,东城区

    \b
    concord load customers clients.csv --institution bank-a --source-system core
    concord load customers 客户.txt --institution bank-a --source-system core --encoding gb18030 --delimiter bar \\
        --map 客户号=source_record_key --map 姓名=full_name --map 备注=ignore --country CN

    Bad rows are named in FILE.rejections.csv with row, field and rule; the others go in. Run the same command again whenever you
    like: an interrupted upload or import goes on where it was. Exit status: 0 every row went in, 1 some were rejected, 2 the file
    cannot be read.
    """
    kind = kind or SUFFIXES.get(file.suffix.lower())
    if kind is None:
        raise click.UsageError(f"what {file.name} is cannot be seen from its name: add --format {'|'.join(sorted(FORMATS))}")
    settings: Json = {
        "format": FORMATS[kind],
        "columns": columns,
        "displayName": file.name,
        "defaultCountryCode": country.upper(),
    }
    if kind != "parquet":
        settings["encoding"] = ENCODINGS[encoding]
    if kind == "csv":
        settings["delimiter"] = DELIMITERS[delimiter or ("tab" if file.suffix.lower() == ".tsv" else "comma")]
    seen = observed or datetime.fromtimestamp(file.stat().st_mtime, UTC)
    settings["defaultObserveTime"] = seen.strftime("%Y-%m-%dT%H:%M:%SZ")
    parent = f"/v1/institutions/{institution}/sourceSystems/{source_system}"
    loader = Loader(file, institution, parent, settings, again)
    try:
        done = asyncio.run(loader.load(rejections or file.with_name(f"{file.name}.rejections.csv")))
    except Problem as problem:
        if problem.status == 404:
            raise Trouble(f"{institution} has no source system {source_system}: create it first ({problem})") from problem
        raise Trouble(str(problem)) from problem
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("[yellow]Interrupted.[/] What was started goes on; the same command shows it, or uploads the rest.")
        sys.exit(130)
    sys.exit(_report(done, loader.rejections_file))


class Loader:
    """Loads one file; knows it again by its content and settings."""

    def __init__(self, file: Path, institution: str, parent: str, settings: Json, again: bool) -> None:
        self.file = file
        self.institution = institution
        self.parent = parent
        self.settings = settings
        self.again = again
        self.rejections_file: Path | None = None
        self.parts_count = max(1, -(-file.stat().st_size // PART_BYTES))

    async def load(self, rejections: Path) -> Json:
        """Uploads what is missing, starts, waits, saves rejected rows; answers the import as it ended."""
        async with Gateway.of_running_platform() as self.gateway:
            found = await self._import()
            path = f"/v1/{found['name']}"
            display = Display()
            with display.progress:
                if found["state"] == "IMPORT_STATE_CREATED":
                    await self._upload(path, found, display)
                    found = await self.gateway.post(
                        f"{path}:start", self._token, {"partsCount": self.parts_count}, request_id=f"start-{found['name']}"
                    )
                if found["state"] not in ENDED:
                    found = await self._wait(path, display)
            if int(found.get("rejectedCount", 0)):
                self.rejections_file = rejections
                await self._save_rejections(path, rejections)
            return found

    @property
    def _token(self) -> str:
        return self.gateway.token("channel", self.institution)

    async def _import(self) -> Json:
        """The import of this file: one that was begun before, or a new one."""
        content = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        for piece in self._pieces():
            content.update(piece)
        again = self.again
        for attempt in range(ATTEMPTS_MAX):
            request_id = f"load-{content.hexdigest()[:40]}-{attempt}"
            made = await self.gateway.post(f"{self.parent}/imports", self._token, self.settings, request_id=request_id)
            found = await self.gateway.get(f"/v1/{made['name']}", self._token)
            if found["state"] in ("IMPORT_STATE_FAILED", "IMPORT_STATE_CANCELLED"):
                continue
            if found["state"] == "IMPORT_STATE_SUCCEEDED":
                if not again:
                    console.print(f"This file was loaded before, at {found['finishTime']}; --again loads it once more.")
                    return found
                continue
            if attempt or found.get("contiguousPartsCount") or found["state"] != "IMPORT_STATE_CREATED":
                console.print(f"{found['name']}, {_word(found['state'])}")
            return found
        raise Trouble(f"{self.file.name} was tried {ATTEMPTS_MAX} times")

    async def _upload(self, path: str, found: Json, display: Display) -> None:
        """Sends the parts that are missing, a few at once."""
        there = int(found.get("contiguousPartsCount", 0))
        if there:
            console.print(f"goes on: {there} of {self.parts_count} parts are there")
        task = display.step("upload, parts", self.parts_count)
        task.advance(there)
        places = asyncio.Semaphore(PARTS_IN_FLIGHT_MAX)

        async def send(number: int, piece: bytes) -> None:
            try:
                body = {"partNumber": number, "content": base64.b64encode(piece).decode()}
                digest = hashlib.sha256(piece).hexdigest()[:16]
                await self.gateway.post(f"{path}:uploadPart", self._token, body, request_id=f"{found['name']}-{number}-{digest}")
                task.advance()
            finally:
                places.release()

        try:
            async with asyncio.TaskGroup() as group:
                for number, piece in enumerate(self._pieces(), 1):
                    if number > there:
                        await places.acquire()
                        sending = group.create_task(send(number, piece))
                        if number == 1:
                            await sending  # what is wrong with the header is said before everything else is sent
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _wait(self, path: str, display: Display) -> Json:
        task = display.step("rows, percent", 100)
        while True:
            found = await self.gateway.get(path, self._token)
            rows, speed = int(found.get("rowsReadCount", 0)), float(found.get("rowsPerSecond", 0))
            task.progress.update(
                task.number, completed=int(found.get("progressPercent", 0)), description=f"{rows:,} rows, {speed:,.0f}/s"
            )
            if found["state"] in ENDED:
                return found
            await asyncio.sleep(POLL_SECONDS)

    async def _save_rejections(self, path: str, target: Path) -> None:
        page = await self.gateway.get(f"{path}/rejections:download", self._token, pageSize="5000")
        with target.open("w", encoding="utf-8", newline="") as file:
            file.write(page.get("csv", ""))
            while token := page.get("nextPageToken"):
                page = await self.gateway.get(f"{path}/rejections:download", self._token, pageSize="5000", pageToken=token)
                file.write(page.get("csv", ""))

    def _pieces(self) -> Iterator[bytes]:
        with self.file.open("rb") as file:
            empty = True
            while piece := file.read(PART_BYTES):
                empty = False
                yield piece
        if empty:
            raise Trouble(f"{self.file} is empty: it must begin with a header row that names the columns")


async def _show_fields() -> None:
    async with Gateway.of_running_platform() as gateway:
        answer = await gateway.get("/v1/importFields", gateway.token("operator"))
    table = Table(title="Fields that a column may be", title_justify="left")
    for heading in ("field", "what it holds", "example"):
        table.add_column(heading)
    for field in answer["fields"]:
        table.add_row(field["field"], field["description"], field["example"])
    console.print(table)


def _word(state: str) -> str:
    return state.removeprefix("IMPORT_STATE_").lower()


def _report(done: Json, rejections: Path | None) -> int:
    """Prints what became of the file; answers the exit status."""
    table = Table(title=f"{done['displayName']}: {_word(done['state'])}", title_justify="left")
    for heading in ("rows", *OUTCOMES, "rows a second"):
        table.add_column(heading, justify="right")
    counts = {name: int(done.get(f"{name}Count", 0)) for name in ("rowsRead", *OUTCOMES)}
    table.add_row(*(f"{count:,}" for count in counts.values()), f"{float(done.get('rowsPerSecond', 0)):,.0f}")
    console.print(table)
    if rejections is not None:
        lines = rejections.read_text(encoding="utf-8").splitlines()
        for line in lines[: SHOWN_REJECTIONS_MAX + 1]:
            console.print(line, style="red", markup=False, soft_wrap=True)
        console.print(f"all {counts['rejected']:,} rejected rows: {rejections}")
    if done["state"] != "IMPORT_STATE_SUCCEEDED":
        error = done.get("error", {})
        console.print(
            f"{error.get('field', '')}: {error.get('description', 'the import was cancelled')}", style="red", markup=False
        )
        return EXIT_FAILED
    return EXIT_SOME_REJECTED if counts["rejected"] else 0
