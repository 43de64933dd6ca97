"""What matching is worth, by our own scorer: no label is ever shown to training or to the pipeline."""

import csv
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from concord.customer.v1.attribute_pb2 import PartyKind
from concord.customer.v1.party_pb2 import Party
from customer.domain.features import Features
from customer.domain.match_model import default_model
from customer.domain.matching import Zone
from customer.training import population
from customer.training.command import evidence, example
from customer.training.evaluate import Pipeline, score
from customer.training.train import Options, TrainingError, train

FEBRL = Path(__file__).parents[5] / "shared/data/febrl"
FEBRL_4 = ("dataset4a.csv", "dataset4b.csv")
FEBRL_3 = ("dataset3.csv",)
PEOPLE, SEED = 4_000, 1


def febrl(*names: str) -> list[tuple[str, Features]]:
    """Whose each record is, and what it states; skips when the data are not at hand."""
    if any(not (FEBRL / name).exists() for name in names):
        pytest.skip(f"{', '.join(names)} of Febrl are not in ../shared/data/febrl")
    records = []
    for name in names:
        with (FEBRL / name).open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines, skipinitialspace=True):
                records.append((row["rec_id"].split("-")[1], evidence(party({k.strip(): v for k, v in row.items()}), "AU", name)))
    return records


def party(row: dict[str, str]) -> Party:
    made = Party(party_kind=PartyKind.PARTY_KIND_PERSON)
    made.party_name.given_name, made.party_name.family_name = row["given_name"], row["surname"]
    if born := row["date_of_birth"]:
        made.birth_date = f"{born[:4]}-{born[4:6]}-{born[6:]}"
    if row["soc_sec_id"]:
        made.identifiers.add(scheme=1, country_code="AU", value=row["soc_sec_id"])
    made.postal_address.address_lines.extend([f"{row['street_number']} {row['address_1']}", row["address_2"]])
    made.postal_address.locality, made.postal_address.postal_code = row["suburb"], row["postcode"]
    return made


@pytest.mark.parametrize(("names", "f1_min"), [(FEBRL_4, 0.995), (FEBRL_3, 0.99)])
def test_trained_on_febrl_without_labels(names, f1_min):
    records = febrl(*names)
    model = train([features for _, features in records], Options(version="febrl", random_pairs=120_000, salt="ab" * 16))
    found = score(model, records)
    assert found.f1 >= f1_min, found
    assert found.precision >= 0.999
    assert model.details["false_links_share_expected"] <= 0.001


@pytest.mark.parametrize(("names", "f1_min"), [(FEBRL_4, 0.995), (FEBRL_3, 0.99)])
def test_the_shipped_model_on_febrl_which_it_has_never_seen(names, f1_min):
    found = score(default_model(), febrl(*names))
    assert found.f1 >= f1_min, found


def test_the_shipped_model_on_chinese_and_western_people_it_has_never_seen():
    found = score(default_model(), example(PEOPLE, SEED).records)
    assert found.f1 >= 0.99, found
    assert found.precision >= 0.998


@pytest.mark.parametrize("shared", [(), ("family",)])
def test_new_people_with_the_birth_date_and_postcode_of_a_real_one_are_not_linked(shared):
    people = population.make(PEOPLE, 1, SEED).people
    pipeline = Pipeline(default_model())
    for person in people:
        pipeline.ingest(evidence(population.party(person), "CN", "one"))
    draw, linked, asked = random.Random(2), 0, 0
    for new in population.make(2_000, 1, SEED + 1).people:
        real = draw.choice(people)
        if shared and real.given == new.given:
            continue  # with all of that and the whole name, nobody could tell them apart
        # Their own card would keep them apart by rule: it is left out.
        copied = {field: getattr(real, field) for field in ("birth_date", "postcode", "city", *shared)}
        stated = replace(new, national_id="", **copied) if new.country == real.country or not shared else None
        if stated is not None:
            asked += 1
            linked += pipeline.decide(evidence(population.party(stated), "CN", "other")).zone is Zone.LINK
    assert asked > 500
    assert linked / asked <= 0.005


def test_a_trained_model_says_what_it_is_and_names_nobody():
    people = example(900, SEED)
    features = [features for _, features in people.records]
    options = Options(version="7", random_pairs=20_000, salt="cd" * 16, key=b"k" * 32, trained_from="a test")
    model = train(features, options)
    text = model.to_json()
    assert (model.version, model.terms.keyed, model.details["records_count"]) == ("7", True, 1_200)
    families = {form.family for record in features for form in record.names.forms if len(form.family) > 3}
    assert not any(f'"{family}"' in text for family in families)
    counted = sum(1 for terms in model.terms.bits.values() for _ in terms)
    assert 0 < counted < len(families)  # only what ten people share
    assert train(features, options).to_json() == text
    # What nobody stated is known from the shipped model.
    unsexed = train([replace(record, sex=0) for record in features], options)
    assert unsexed.weights["sex"] == default_model().weights["sex"]


def test_too_few_records_are_no_training():
    with pytest.raises(TrainingError, match="at least 200"):
        train([], Options(version="1"))


def test_what_serves_requests_imports_neither_splink_nor_duckdb():
    program = "import sys, customer.wiring; sys.exit(any(name in sys.modules for name in ('splink', 'duckdb')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
