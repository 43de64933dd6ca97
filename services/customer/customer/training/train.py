"""Trains a match model with Splink on DuckDB, without labels: u from random pairs, m by expectation maximisation."""

import hashlib
import hmac
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import duckdb
from splink import DuckDBAPI, Linker

from customer.domain.blocking import blocking_keys
from customer.domain.comparisons import COMPARISONS
from customer.domain.features import Features
from customer.domain.match_model import BITS_MAX, BITS_MIN, FORMAT, Model, default_model, term_hash
from customer.domain.matching import explain
from customer.training import levels

RANDOM_PAIRS_MAX = 1_000_000
EM_PAIRS_MIN, EM_PAIRS_MAX = 100, 400_000
EM_BLOCKS = ("birth_date", "identifier", "email", "phone", "name")
"""Attributes that may be held fixed in a run of expectation maximisation: the first two with enough pairs are, the purest first.

Two runs train every attribute once at least. Many people share a telephone or a name, which would pass for matches.
"""
EM_RUNS = 2
TERM_PEOPLE_MIN = 10
"""A name of fewer records is not in the model: nobody can be found by being the only one of that name."""
UNSEEN_BITS_MAX = 10.0
SCORED_PAIRS_MAX = 300_000
LINK_BITS_MIN = 6.0
M_UNSEEN_SHARE = 0.01
"""So much of what matches say is set aside for levels that the records happen not to show."""
M_DIFFERENT_SHARE = 0.02
"""And so much for matches that differ altogether: some record everywhere holds somebody else's value."""
STEWARD_BITS = -3.0
"""A steward sees what is one party with a probability of one in nine or more."""


class TrainingError(Exception):
    """The records are not enough to train on; says what is missing."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Args:
        version: the name of the model.
        false_links_share_max: of the pairs that the model would link, so many may be wrong, as the model itself expects.
        random_pairs: for u; more are slower and more exact.
        seed: of the random pairs.
        salt: of the hashes of names, hexadecimal; drawn when empty.
        key: the platform's key for term frequencies; without it the salt alone is the key.
    """

    version: str
    false_links_share_max: float = 0.001
    random_pairs: int = RANDOM_PAIRS_MAX
    seed: int = 1
    salt: str = ""
    key: bytes = b""
    trained_from: str = ""


def train(features: Sequence[Features], options: Options, progress: Callable[[float], None] = lambda _: None) -> Model:
    """A model from records, in a fraction of a minute for some ten thousand.

    Raises:
        TrainingError: when the records are too few, or no attribute repeats often enough.
    """
    if len(features) < 200:
        raise TrainingError(f"{len(features)} records are too few: at least 200 are needed")
    connection = duckdb.connect()
    connection.execute("SET threads = 1")  # more would draw other random pairs each time, and wait for one another in Python
    try:
        trained = _run_splink(connection, features, options, progress)
    finally:
        connection.close()
    progress(0.8)
    pairs = _pairs(features)
    draft = _model(features, _weights(trained, options.random_pairs), options)
    # Random pairs hold some matches: what these add to u is taken out again.
    matches_share = sum(map(_probability, _scores(draft, features, pairs))) / (len(features) * (len(features) - 1) / 2)
    weights = _weights(trained, options.random_pairs, matches_share)
    draft = _model(features, weights, options)
    link, expected = _threshold(_scores(draft, features, pairs), options.false_links_share_max)
    progress(1.0)
    return _model(features, weights, options, link, {
        "trained_from": options.trained_from,
        "records_count": len(features),
        "random_pairs": options.random_pairs,
        "seed": options.seed,
        "false_links_share_max": options.false_links_share_max,
        "false_links_share_expected": round(expected, 6),
        "scored_pairs_count": len(pairs),
        "matches_share": matches_share,
        "levels": trained,
    })  # fmt: skip


def _run_splink(
    connection: duckdb.DuckDBPyConnection, features: Sequence[Features], options: Options, progress: Callable[[float], None]
) -> dict[str, dict[str, list[float | None]]]:
    """m and u of every level of every attribute, None where never seen."""
    table, values = levels.columns(features)
    levels.register(connection, values)
    blocks = _blocks(connection, table)
    if not blocks:
        raise TrainingError("no attribute has the same value in two records often enough")
    settings = {
        "link_type": "dedupe_only",
        "unique_id_column_name": "unique_id",
        "probability_two_random_records_match": max(1 / len(features), 1e-7),
        "comparisons": levels.comparisons(),
        "blocking_rules_to_generate_predictions": [],
        "retain_matching_columns": False,
        "retain_intermediate_calculation_columns": False,
        "max_iterations": 25,
    }
    api = DuckDBAPI(connection)
    linker = Linker(api.register(table), settings, log_level=logging.ERROR)
    linker.training.estimate_u_using_random_sampling(max_pairs=options.random_pairs, seed=options.seed)
    progress(0.5)
    for place, (_, rule) in enumerate(blocks, 1):
        linker.training.estimate_parameters_using_expectation_maximisation(rule, max_pairs=EM_PAIRS_MAX)
        progress(0.5 + 0.3 * place / len(blocks))
    return _read(linker.misc.save_model_to_json())


def _blocks(connection: duckdb.DuckDBPyConnection, table: Any) -> list[tuple[str, str]]:
    """Attributes whose equal values give enough pairs, and few enough, for a run."""
    connection.register("stated", table)
    found = []
    for attribute in EM_BLOCKS:
        row = connection.execute(
            f"SELECT sum(n * (n - 1) / 2) FROM (SELECT count(*) n FROM stated WHERE {attribute} IS NOT NULL GROUP BY {attribute})"
        ).fetchall()
        if (row[0][0] or 0) >= EM_PAIRS_MIN:
            found.append((attribute, f"l.{attribute} = r.{attribute}"))
    return found[:EM_RUNS]


def _read(settings: dict[str, Any]) -> dict[str, dict[str, list[float | None]]]:
    trained = {}
    for comparison in settings["comparisons"]:
        by_level = {
            int(level["label_for_charts"]): (level.get("m_probability"), level.get("u_probability"))
            for level in comparison["comparison_levels"]
            if not level.get("is_null_level")
        }
        ordered = [by_level[level] for level in sorted(by_level)]
        trained[comparison["output_column_name"]] = {"m": [m for m, _ in ordered], "u": [u for _, u in ordered]}
    return trained


# ---- from probabilities to bits


def _weights(
    trained: dict[str, dict[str, list[float | None]]], random_pairs: int, matches_share: float = 0.0
) -> dict[str, tuple[float, ...]]:
    """Bits by attribute and level: a level that was never seen gets the least share it can have had, and a better level is never
    worth less."""
    weights = {}
    for attribute, probabilities in trained.items():
        if not any(probabilities["u"]):  # nobody states it here: what is known of it elsewhere
            weights[attribute] = default_model().weights[attribute]
            continue
        count = len(probabilities["m"])
        aside = [M_DIFFERENT_SHARE + M_UNSEEN_SHARE / count, *[M_UNSEEN_SHARE / count] * (count - 1)]
        ms = [(1 - M_DIFFERENT_SHARE - M_UNSEEN_SHARE) * (m or 0.0) + a for m, a in zip(probabilities["m"], aside, strict=True)]
        us = [max((u or 0.0) - matches_share * m, 0.5 / random_pairs) for m, u in zip(ms, probabilities["u"], strict=True)]
        bits = _rising([min(max(log2(m / u), BITS_MIN), BITS_MAX) for m, u in zip(ms, us, strict=True)], ms)
        weights[attribute] = (min(bits[0], 0.0), *bits[1:-1], max(bits[-1], 0.0))
    return weights


def _rising(bits: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The nearest rising sequence: neighbours in the wrong order share their mean, weighted by how often they occur."""
    pools: list[list[float]] = []
    for value, share in zip(bits, shares, strict=True):
        pools.append([value, share, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            upper, lower = pools.pop(), pools.pop()
            total = lower[1] + upper[1]
            pools.append([(lower[0] * lower[1] + upper[0] * upper[1]) / total, total, lower[2] + upper[2]])
    return [value for value, _, count in pools for _ in range(int(count))]


def _model(
    features: Sequence[Features], weights: dict[str, tuple[float, ...]], options: Options, link: float = LINK_BITS_MIN,
    details: dict[str, Any] | None = None,
) -> Model:  # fmt: skip
    names = {attribute: {level.name: bits for level, bits in zip(COMPARISONS[attribute][0], weights[attribute], strict=True)}
             for attribute in weights}  # fmt: skip
    content = {
        "format": FORMAT,
        "version": options.version,
        "link_bits": round(link, 2),
        "steward_bits": STEWARD_BITS,
        "comparisons": names,
        "terms": _terms(features, options),
        "details": details or {},
    }
    return Model.from_json(json.dumps(content), options.key)


def _terms(features: Sequence[Features], options: Options) -> dict[str, Any]:
    salt = options.salt or secrets.token_hex(16)
    key = hmac.digest(options.key, bytes.fromhex(salt), hashlib.sha256) if options.key else bytes.fromhex(salt)
    counts: dict[str, Counter[str]] = {"given": Counter(), "family": Counter()}
    for record in features:
        for form in record.names.forms[:1]:
            counts["given"][form.given] += 1
            counts["family"][form.family] += 1
    bits, unseen, average = {}, {}, {}
    for kind, counted in counts.items():
        counted.pop("", None)
        total = max(counted.total(), 1)
        bits[kind] = {
            term_hash(key, kind, term): -log2(count / total) for term, count in counted.items() if count >= TERM_PEOPLE_MIN
        }
        unseen[kind] = round(min(-log2(min(TERM_PEOPLE_MIN / total, 1)), UNSEEN_BITS_MAX), 3)
        average[kind] = round(-log2(max(sum((count / total) ** 2 for count in counted.values()), 1 / total)), 3)
    return {"salt": salt, "keyed": bool(options.key), "bits": bits, "unseen_bits": unseen, "average_bits": average}


# ---- the thresholds


def _scores(model: Model, features: Sequence[Features], pairs: set[tuple[int, int]]) -> list[float]:
    population = len(features)
    return [explain(model, features[one], features[other], population=population).weight_bits for one, other in pairs]


def _probability(weight_bits: float) -> float:
    return 1 / (1 + 2 ** min(max(-weight_bits, -60.0), 60.0))


def _threshold(weights: Sequence[float], share_max: float) -> tuple[float, float]:
    """The lowest weight from which on the links are wrong no more often than wanted, as the model expects; and that share."""
    wrong, expected = 0.0, 0.0
    for linked, weight in enumerate(sorted(weights, reverse=True), 1):
        if weight < LINK_BITS_MIN:
            return LINK_BITS_MIN, expected
        wrong += 1 - _probability(weight)
        if wrong / linked > share_max:
            return weight, expected
        expected = wrong / linked
    return LINK_BITS_MIN, expected


def _pairs(features: Sequence[Features]) -> set[tuple[int, int]]:
    blocks: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(features):
        for key in blocking_keys(record):
            blocks.setdefault(key, []).append(place)
    pairs: set[tuple[int, int]] = set()
    for members in blocks.values():
        if len(members) > 200:
            continue
        pairs.update((one, other) for at, one in enumerate(members) for other in members[at + 1 :])
        if len(pairs) >= SCORED_PAIRS_MAX:
            break
    return pairs


__all__ = ["Options", "TrainingError", "train"]
