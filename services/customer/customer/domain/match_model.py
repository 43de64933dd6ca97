"""A match model: how many bits each level of agreement is worth, how common names are, and where the zones begin.

A model holds no readable names: term frequencies stand under keyed hashes, and only of names that many people share.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from math import isfinite, log2
from typing import Any

from customer.domain.comparisons import COMPARISONS, NameLevel
from customer.domain.features import NameForm, Names

FORMAT = 1
BITS_DIGITS = 3
BITS_MIN, BITS_MAX = -12.0, 20.0
"""No attribute decides alone for ever, however rare its level was in training."""
POPULATION_MIN = 10_000
"""A young platform holds a sample of a population that is at least so large."""
SALT_BYTES_MIN = 16
TERM_HASH_BYTES = 6
TERMS_CACHED_MAX = 50_000


def term_hash(key: bytes, kind: str, term: str) -> str:
    """The keyed hash under which the frequency of a name stands."""
    return hashlib.blake2b(f"{kind}\0{term}".encode(), key=key[:64], digest_size=TERM_HASH_BYTES).hexdigest()


def prior_bits(population: int) -> float:
    """The log odds that a random record is a given customer, before anything was compared."""
    return -log2(max(population, POPULATION_MIN))


class ModelInvalid(ValueError):
    """A text is not a match model; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How surprising a name is: -log2 of its share, by keyed hash; one value for all that are not listed."""

    salt: str
    keyed: bool
    bits: Mapping[str, Mapping[str, float]]
    unseen_bits: Mapping[str, float]
    average_bits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Model:
    """A model, ready to score."""

    version: str
    link_bits: float
    steward_bits: float
    weights: Mapping[str, tuple[float, ...]]
    terms: Terms
    details: Mapping[str, Any]
    key: bytes = field(repr=False)
    _cached: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict, repr=False)

    # ---- scoring

    def bits(self, attribute: str, level: int) -> float:
        """The worth of a level, names without their frequencies."""
        return self.weights[attribute][level]

    def name_bits(self, one: Names, other: Names, level: NameLevel) -> float:
        """The worth of agreeing names: rare ones say more. Never more than the same names in full would be worth."""
        base = self.weights["name"][level]
        if level >= NameLevel.SWAPPED:
            return _clamped(base + self._surprise(self._agreeing(one, other)))
        if base <= 0:
            return base
        ceiling = min(self._worth_in_full(one), self._worth_in_full(other))
        if level in (NameLevel.GIVEN_SAME, NameLevel.FAMILY_SAME):
            kind = "given" if level is NameLevel.GIVEN_SAME else "family"
            shared = {getattr(form, kind) for form in one.forms} & {getattr(form, kind) for form in other.forms}
            rarity = min((self.term(kind, part)[0] for part in shared if part), default=self.terms.average_bits[kind])
            base = min(base + rarity - self.terms.average_bits[kind], self.weights["name"][NameLevel.CLOSE])
        elif level is NameLevel.ONE_PART_ONLY:
            base = min(base, self._rarity_of_one_part(one, other))
        return _clamped(min(base, ceiling))

    def _rarity_of_one_part(self, one: Names, other: Names) -> float:
        """How surprising the part is that both have, whatever part each of them takes it for."""
        mine, theirs = ({part for form in names.forms for part in (form.given, form.family) if part} for names in (one, other))
        return min((min(self.term("given", part)[0], self.term("family", part)[0]) for part in mine & theirs), default=0.0)

    def term(self, kind: str, term: str) -> tuple[float, bool]:
        """How surprising a part of a name is, and whether it is a known one."""
        cached = self._cached.get((kind, term))
        if cached is None:
            if len(self._cached) >= TERMS_CACHED_MAX:
                self._cached.clear()
            listed = self.terms.bits[kind].get(term_hash(self.key, kind, term))
            cached = self._cached[kind, term] = (self.terms.unseen_bits[kind], False) if listed is None else (listed, True)
        return cached

    def is_known(self, kind: str, term: str) -> bool:
        """Whether many people have this given or family name: then it is hardly a misspelling."""
        return self.term(kind, term)[1]

    @staticmethod
    def _agreeing(one: Names, other: Names) -> list[NameForm]:
        theirs = set(other.forms)
        same = [form for form in one.forms if form in theirs or NameForm(form.family, form.given) in theirs]
        return same or [*one.forms, *other.forms]

    def _surprise(self, forms: list[NameForm]) -> float:
        """How much rarer than the average the commonest of these readings is."""
        average = self.terms.average_bits
        return min(
            (
                (self.term("given", form.given)[0] - average["given"] if form.given else 0.0)
                + (self.term("family", form.family)[0] - average["family"] if form.family else 0.0)
                for form in forms
            ),
            default=0.0,
        )

    def _worth_in_full(self, names: Names) -> float:
        return self.weights["name"][NameLevel.SWAPPED] + self._surprise(list(names.forms))

    def renamed(self, version: str) -> "Model":
        """The same under another version."""
        return replace(self, version=version)

    # ---- as JSON

    def to_json(self) -> str:
        """The model as text, always the same for the same model."""
        comparisons = {
            attribute: {level.name: self.weights[attribute][level] for level in levels}
            for attribute, (levels, _, _) in COMPARISONS.items()
        }
        terms = {
            "salt": self.terms.salt,
            "keyed": self.terms.keyed,
            "bits": {
                kind: {term: round(bits, 2) for term, bits in sorted(terms.items())} for kind, terms in self.terms.bits.items()
            },
            "unseen_bits": dict(self.terms.unseen_bits),
            "average_bits": dict(self.terms.average_bits),
        }
        content = {
            "format": FORMAT,
            "version": self.version,
            "link_bits": self.link_bits,
            "steward_bits": self.steward_bits,
            "comparisons": comparisons,
            "terms": terms,
            "details": dict(self.details),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str, key: bytes = b"") -> "Model":
        """A model from its text.

        Args:
            text: as `to_json` writes it.
            key: the platform's key of term frequencies; a model with `keyed` terms needs it.

        Raises:
            ModelInvalid: saying what is wrong.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ModelInvalid(f"format must be {FORMAT}")
            terms = _terms(content["terms"])
            stated = content["comparisons"]
            weights = {
                attribute: tuple(_clamped(round(float(stated[attribute][level.name]), BITS_DIGITS)) for level in levels)
                for attribute, (levels, _, _) in COMPARISONS.items()
            }
            link, steward = float(content["link_bits"]), float(content["steward_bits"])
            details = dict(content.get("details", {}))
        except KeyError as error:
            raise ModelInvalid(f"the model lacks a field: {error}") from None
        except ModelInvalid:
            raise
        except (TypeError, ValueError, AttributeError):
            raise ModelInvalid("the model is not JSON of numbers and texts as `python -m customer train` writes it") from None
        _check(weights, terms, link, steward)
        if terms.keyed and not key:
            raise ModelInvalid("this model's terms are keyed: the platform's key is needed")
        salt = bytes.fromhex(terms.salt)
        own_key = hmac.digest(key, salt, hashlib.sha256) if terms.keyed else salt
        return cls(str(content["version"]), link, steward, weights, terms, details, own_key)


def _terms(content: Any) -> Terms:
    kinds = ("given", "family")
    if len(bytes.fromhex(content["salt"])) < SALT_BYTES_MIN:
        raise ModelInvalid(f"terms.salt must have at least {2 * SALT_BYTES_MIN} hexadecimal digits")
    return Terms(
        salt=content["salt"],
        keyed=content["keyed"] is True,
        bits={kind: {str(term): float(bits) for term, bits in content["bits"][kind].items()} for kind in kinds},
        unseen_bits={kind: float(content["unseen_bits"][kind]) for kind in kinds},
        average_bits={kind: float(content["average_bits"][kind]) for kind in kinds},
    )


def _check(weights: Mapping[str, tuple[float, ...]], terms: Terms, link: float, steward: float) -> None:
    for attribute, bits in weights.items():
        if list(bits) != sorted(bits):
            raise ModelInvalid(f"comparisons.{attribute}: a better level must not be worth less")
        if bits[0] > 0 or bits[-1] < 0:
            raise ModelInvalid(f"comparisons.{attribute}: differing must not speak for a match, nor agreeing against it")
    numbers = [link, steward, *(bits for levels in weights.values() for bits in levels)]
    for values in (*terms.bits.values(), terms.unseen_bits, terms.average_bits):
        numbers += values.values()
    if not all(map(isfinite, numbers)):
        raise ModelInvalid("all numbers must be finite")
    if not steward <= link:
        raise ModelInvalid("steward_bits must not be above link_bits")


def _clamped(bits: float) -> float:
    return min(max(bits, BITS_MIN), BITS_MAX)


@cache
def default_model() -> Model:
    """The model that is used until another one is activated; see `customer/training` for how it was made."""
    return Model.from_json(resources.files("customer").joinpath("data/default_match_model.json").read_text(encoding="utf-8"))
