"""What the engine reads of programmes, agreements and rates: one object, loaded again when a change raised its version."""

import json
import uuid
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from chassis.database import Connection
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.domain.ledger.configuration import (
    AgreementTerms,
    Basis,
    Funding,
    PlainConfiguration,
    ProgramTerms,
    RateTerms,
)
from loyalty.domain.limits import Limit, Scope, Window


async def raise_version(connection: Connection) -> None:
    """Says that the configuration changes. To be called before anything of it is read in the transaction: it takes the heads'
    locks, so changes come one after the other, and no batch is decided meanwhile.

    A sequence gives the number, because it is not taken back with a transaction: what was read in one that failed is never taken
    for the next one's.
    """
    await connection.execute(
        "UPDATE ledger_heads h SET configuration_version = nextval('configuration_versions')"
        " FROM (SELECT shard FROM ledger_heads ORDER BY shard FOR UPDATE) locked WHERE h.shard = locked.shard"
    )


async def load(connection: Connection) -> PlainConfiguration:
    """The configuration and its version, by one statement, so that both are of one instant. Of rates those before the one that
    was valid a day ago are left out."""
    content = json.loads(await connection.fetchval(_LOAD))
    policies: dict[str, list[ExpiryPolicy]] = {}
    for row in content["expiry_policies"]:
        policies.setdefault(row["program_id"], []).append(_policy(row))
    rates: dict[tuple[str, str], list[RateTerms]] = {}
    for row in content["rates"]:
        terms = RateTerms(row["numerator"], row["denominator"], _instant(row["valid_from"]))
        rates.setdefault((row["from_program_id"], row["to_program_id"]), []).append(terms)
    agreements = [_agreement(row) for row in content["agreements"]]
    return PlainConfiguration(
        version=content["version"],
        programs={row["program_id"]: _program(row, policies.get(row["program_id"], [])) for row in content["programs"]},
        agreements={(terms.agreement_id, terms.version): terms for terms in agreements},
        rates={pair: tuple(terms) for pair, terms in rates.items()},
        limits=tuple(map(_limit, content["limits"])),
    )


class Configurations:
    """The configuration as this process last read it."""

    def __init__(self) -> None:
        self._latest: PlainConfiguration | None = None

    async def of_version(self, connection: Connection, version: int) -> PlainConfiguration:
        """The configuration of the version in the head that the transaction has locked: nobody can change it meanwhile."""
        if self._latest is None or self._latest.version != version:
            self._latest = await load(connection)
        return self._latest

    async def current(self, connection: Connection) -> PlainConfiguration:
        """The configuration as it is, for who decides nothing: it may change at any moment."""
        return await self.of_version(connection, await connection.fetchval("SELECT max(configuration_version) FROM ledger_heads"))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _policy(row: dict[str, Any]) -> ExpiryPolicy:
    fixed_date = date.fromisoformat(row["fixed_date"]) if row["fixed_date"] else None
    return ExpiryPolicy(
        row["version"], _instant(row["effective_time"]), ExpiryKind(row["kind"]), row["months"], row["days"], fixed_date
    )


def _program(row: dict[str, Any], policies: list[ExpiryPolicy]) -> ProgramTerms:
    return ProgramTerms(
        program_id=row["program_id"],
        institution_id=row["institution_id"],
        expiry_policies=tuple(policies),
        zone=ZoneInfo(row["time_zone"]),
        pending_days=row["pending_days"],
        transfers_allowed=row["transfers_allowed"],
        refund_grace_days=row["refund_grace_days"],
        sandbox=row["sandbox"],
    )


def _agreement(row: dict[str, Any]) -> AgreementTerms:
    return AgreementTerms(
        agreement_id=uuid.UUID(row["agreement_id"]),
        version=row["version"],
        issuer_institution_id=row["issuer_institution_id"],
        partner_institution_id=row["partner_institution_id"],
        basis=Basis(row["basis"]),
        price_numerator=row["price_numerator"],
        price_denominator=row["price_denominator"],
        fee_basis_points=row["fee_basis_points"],
        currency_code=row["currency_code"],
        funding=Funding(row["funding"]),
        limit_minor_units=row["packs_minor_units"] if row["funding"] == Funding.PREPAID else row["net_debit_cap_minor_units"],
        low_water_minor_units=row["low_water_minor_units"],
        effective_time=_instant(row["effective_time"]),
        end_time=_instant(row["end_time"]) if row["end_time"] else None,
        active=row["state"] == "ACTIVE",
    )


def _limit(row: dict[str, Any]) -> Limit:
    return Limit(
        limit_id=uuid.UUID(row["limit_id"]),
        scope=Scope(row["scope"]),
        window=Window(row["window_kind"]),
        zone=ZoneInfo(row["time_zone"]),
        kinds=frozenset(row["kinds"]),
        institution_id=row["institution_id"] or "",
        program_id=row["program_id"] or "",
        count_max=row["count_max"],
        points_max=row["points_max"],
        first_days=row["first_days"],
    )


def _rows(query: str) -> str:
    return f"(SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM ({query}) r)"


_AGREEMENTS = (
    "SELECT v.*, a.issuer_institution_id, a.partner_institution_id, a.basis, a.currency_code, a.funding, a.state, a.end_time,"
    " (SELECT coalesce(sum(minor_units), 0)::bigint FROM agreement_packs p WHERE p.agreement_id = a.agreement_id)"
    " AS packs_minor_units"
    " FROM (SELECT agreement_id, version, price_numerator, price_denominator, fee_basis_points, net_debit_cap_minor_units,"
    " low_water_minor_units, effective_time FROM agreement_versions WHERE state = 'APPROVED') v"
    " JOIN agreements a USING (agreement_id) ORDER BY v.agreement_id, v.version"
)
_RATES = (
    "SELECT from_program_id, to_program_id, numerator, denominator, valid_from FROM rates r WHERE state = 'PUBLISHED'"
    " AND valid_from >= coalesce((SELECT max(b.valid_from) FROM rates b WHERE b.state = 'PUBLISHED'"
    " AND (b.from_program_id, b.to_program_id) = (r.from_program_id, r.to_program_id)"
    " AND b.valid_from <= now() - interval '1 day'), '-infinity')"
    " ORDER BY from_program_id, to_program_id, valid_from"
)
_PROGRAMS = (
    "SELECT program_id, institution_id, time_zone, pending_days, transfers_allowed, refund_grace_days, sandbox FROM programs"
)
_POLICIES = (
    "SELECT program_id, version, effective_time, kind, months, days, fixed_date FROM expiry_policies ORDER BY program_id, version"
)
_LIMITS = "SELECT * FROM limits WHERE state IN ('ACTIVE', 'ENDING') ORDER BY limit_id"
_LOAD = (
    "SELECT jsonb_build_object('version', (SELECT max(configuration_version) FROM ledger_heads),"
    f" 'programs', {_rows(_PROGRAMS)}, 'expiry_policies', {_rows(_POLICIES)},"
    f" 'agreements', {_rows(_AGREEMENTS)}, 'rates', {_rows(_RATES)}, 'limits', {_rows(_LIMITS)})::text"
)
