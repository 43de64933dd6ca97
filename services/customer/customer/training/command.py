"""`python -m customer train`: trains a match model offline, from a file or a synthetic population, and says what it is worth."""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from concord.customer.v1.party_pb2 import Party
from customer.domain.features import Features
from customer.domain.import_rows import NAMES
from customer.domain.intake import Rejected
from customer.features import features_of
from customer.import_parties import Defaults, source_record
from customer.standards import canonical, standardised
from customer.training import population
from customer.training.evaluate import Score, score
from customer.training.train import Options, TrainingError, train

SYNTHETIC_PEOPLE, SYNTHETIC_SEED = 60_000, 7
COPIES_SHARE = 3
"""Of so many people one has a second record."""
SHIPPED_SALT = "5c" * 16
"""The shipped model is the same wherever it is made; its names are those of `population.json` and no secret."""
CHECKED_PEOPLE, CHECKED_SEED = 10_000, 99


def main(arguments: Sequence[str]) -> None:
    """Trains, writes the model, says how good it is on another synthetic population."""
    options = _parser().parse_args(arguments)
    try:
        features = _synthetic(options) if options.synthetic else list(_from_file(options))
        model = train(
            features,
            Options(
                version=options.version,
                false_links_share_max=options.false_links_share_max,
                random_pairs=options.random_pairs,
                seed=options.seed,
                salt=SHIPPED_SALT if options.synthetic else "",
                trained_from=f"synthetic population, seed {options.seed}" if options.synthetic else "a file",
            ),
        )
    except (TrainingError, OSError) as error:
        sys.stderr.write(f"customer train: {error}\n")
        raise SystemExit(1) from None
    options.out.write_text(model.to_json() + "\n", encoding="utf-8")
    checked = check(model)
    sys.stdout.write(
        f"{options.out}: trained on {len(features)} records, link from {model.link_bits} bits, steward from {model.steward_bits};"
        f" on {CHECKED_PEOPLE} synthetic people it has not seen: precision {checked.precision:.4f}, recall {checked.recall:.4f},"
        f" F1 {checked.f1:.4f}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m customer train", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, help="CSV or Parquet, with the columns of bulk imports")
    what.add_argument(
        "--synthetic", type=int, nargs="?", const=SYNTHETIC_PEOPLE, help="so many people of the synthetic population"
    )
    parser.add_argument("--out", type=Path, required=True, help="where to write the model")
    parser.add_argument("--version", default="draft", help="its name")
    parser.add_argument("--country", default="CN", help="ISO 3166-1 alpha-2: of documents and numbers that name none")
    parser.add_argument("--false-links-share-max", type=float, default=0.001, help="of the links, so many may be wrong")
    parser.add_argument("--random-pairs", type=int, default=1_500_000, help="more are slower and more exact")
    parser.add_argument("--seed", type=int, default=SYNTHETIC_SEED)
    return parser


@dataclass(frozen=True, slots=True)
class Example:
    """A synthetic population as evidence: whose each record is, and what it states."""

    people: Sequence[Features]
    records: Sequence[tuple[int, Features]]


def example(people_count: int, seed: int) -> Example:
    """A population of two sources: everybody in one, a corrupted copy of some in the other."""
    made = population.make(people_count, people_count // COPIES_SHARE, seed)
    people = [evidence(population.party(person), "CN", "one") for person in made.people]
    copies = [(number, evidence(population.party(person), "CN", "other")) for number, person in made.copies]
    return Example(people, [*enumerate(people), *copies])


def check(model: Any) -> Score:
    """What a model is worth on people it has not seen."""
    return score(model, example(CHECKED_PEOPLE, CHECKED_SEED).records)


def evidence(party: Party, country_code: str, source: str) -> Features:
    """What matching sees of a party as it is stated."""
    return features_of(standardised(canonical(party), country_code), source=source)


def _synthetic(options: argparse.Namespace) -> list[Features]:
    return [features for _, features in example(options.synthetic, options.seed).records]


def _from_file(options: argparse.Namespace) -> Iterator[Features]:
    rows = _parquet(options.file) if options.file.suffix == ".parquet" else _csv(options.file)
    defaults = Defaults(observe_seconds=0, country_code=options.country)
    refused = 0
    for number, texts in enumerate(rows, 1):
        try:
            record = source_record({"source_record_key": str(number), **texts}, defaults)
        except Rejected:
            refused += 1
            continue
        yield evidence(record.party, options.country, "file")
    if refused:
        sys.stderr.write(f"customer train: {refused} rows break a rule and were left out\n")


def _csv(path: Path) -> Iterator[Mapping[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        fields = _fields(reader.fieldnames or [])
        for row in reader:
            yield {fields[column]: value.strip() for column, value in row.items() if column in fields and value and value.strip()}


def _parquet(path: Path) -> Iterator[Mapping[str, str]]:
    file = pyarrow.parquet.ParquetFile(path)
    fields = _fields(file.schema_arrow.names)
    for batch in file.iter_batches(columns=list(fields)):
        for row in batch.to_pylist():
            yield {fields[column]: str(value) for column, value in row.items() if value not in (None, "")}


def _fields(columns: Sequence[str]) -> dict[str, str]:
    """Which field each column is; columns that are none are left out."""
    known = {column: column.strip().casefold() for column in columns if column.strip().casefold() in NAMES}
    if not known:
        raise TrainingError(f"no column is a field of bulk imports: {', '.join(NAMES)}")
    return known
