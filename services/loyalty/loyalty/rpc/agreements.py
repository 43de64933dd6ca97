"""ExchangeService: agreements, their versions and packs."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar
from uuid import UUID

import asyncpg
import grpc

from chassis import clock, etags, pages
from chassis.database import Connection, Database
from chassis.errors import AlreadyExists, FailedPrecondition
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import new_id, parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, Handler, UnitOfWork
from concord.loyalty.v1 import exchange_service_pb2 as pb
from loyalty.domain import agreements as domain
from loyalty.domain.agreements import AgreementState, Version, VersionState
from loyalty.domain.four_eyes import Person, Refused
from loyalty.domain.ledger.configuration import Basis, Funding
from loyalty.rpc import exchange_messages as messages
from loyalty.rpc.errors import institution_not_found
from loyalty.store import agreements, configuration, programs

Context = grpc.aio.ServicerContext[object, object]
StateRequest: TypeAlias = pb.SuspendAgreementRequest | pb.ResumeAgreementRequest | pb.EndAgreementRequest
T = TypeVar("T")


class AgreementMethods:
    """What ExchangeService does with agreements."""

    _database: Database
    _commands: Commands

    async def CreateAgreement(self, request: pb.CreateAgreementRequest, context: Context) -> pb.Agreement:
        wanted = request.agreement
        issuer, partner = (
            resource_segments(name, "institutions", field=f"agreement.{field}")[0]
            for field, name in (("issuer", wanted.issuer), ("partner", wanted.partner))
        )
        basis, funding = messages.BASIS_OF[wanted.basis], messages.FUNDING_OF[wanted.funding]
        if issuer == partner:
            raise messages.invalid([("agreement.partner", "must be another institution than the issuer")], "AGREEMENT_INVALID")
        terms = _checked(wanted.terms, funding, "agreement.terms.")

        async def handler(unit: UnitOfWork) -> pb.Agreement:
            if unit.principal.institution not in (issuer, partner):
                require_institution(unit.principal, issuer)
            for institution_id in (issuer, partner):
                if not await programs.institution_exists(unit.connection, institution_id):
                    raise institution_not_found(institution_id)
            agreement_id = new_id()
            added = await agreements.insert(
                unit.connection, agreement_id, issuer, partner, basis, wanted.currency_code, funding, unit.now
            )
            if not added:
                raise AlreadyExists(
                    "AGREEMENT_EXISTS",
                    "the two have an agreement of this basis that did not end; amend that one, or end it first",
                    field_violations=[("agreement.basis", "has an agreement between the two already")],
                )
            row = await _require(unit.connection, unit.principal, agreement_id)
            drafters = (messages.person_of(unit.principal),)
            version = Version(1, VersionState.DRAFT, terms, drafters, wanted_time=messages.wanted_time(wanted.terms))
            await agreements.save_version(unit.connection, row, version, unit.now)
            return messages.to_agreement(row, version, unit.principal)

        return await self._commands.run(request, handler)

    async def GetAgreement(self, request: pb.GetAgreementRequest, context: Context) -> pb.Agreement:
        async with self._database.connection() as connection:
            row = await _require(connection, current_principal(), resource_id(request.name, "agreements"))
            return await _to_message(connection, row, current_principal())

    async def GetAgreementExposure(self, request: pb.GetAgreementExposureRequest, context: Context) -> pb.AgreementExposure:
        agreement_id = parse_id(request.name.split("/")[1], "name")
        async with self._database.connection() as connection:
            row = await _require(connection, current_principal(), agreement_id)
            version = await agreements.in_force(connection, row, clock.now())
            owed = await agreements.exposure(connection, agreement_id)
            packs_minor_units = await agreements.packs_minor_units(connection, agreement_id)
        return messages.to_exposure(row, version, owed, packs_minor_units)

    async def ListAgreements(self, request: pb.ListAgreementsRequest, context: Context) -> pb.ListAgreementsResponse:
        limit = pages.page_size(request.page_size, messages.PAGE_DEFAULT, messages.PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        principal = current_principal()
        mine = None if principal.sees_all else principal.institution or ""
        async with self._database.connection() as connection:
            rows = await agreements.list_after(connection, mine, UUID(keys[0]) if keys else None, limit + 1)
            newest = await agreements.newest(connection, rows[:limit])
        found = [messages.to_agreement(row, version, principal) for row, version in zip(rows, newest, strict=False)]
        token = pages.encode([str(rows[limit - 1]["agreement_id"])], request) if len(rows) > limit else ""
        return pb.ListAgreementsResponse(agreements=found, next_page_token=token)

    async def ListAgreementVersions(
        self, request: pb.ListAgreementVersionsRequest, context: Context
    ) -> pb.ListAgreementVersionsResponse:
        agreement_id = resource_id(request.parent, "agreements", field="parent")
        limit = pages.page_size(request.page_size, messages.PAGE_DEFAULT, messages.PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        principal = current_principal()
        async with self._database.connection() as connection:
            row = await _require(connection, principal, agreement_id)
            found = await agreements.versions(connection, row, int(keys[0]) if keys else None, limit + 1)
        token = pages.encode([str(found[limit - 1].number)], request) if len(found) > limit else ""
        return pb.ListAgreementVersionsResponse(
            agreement_versions=[messages.to_version(row, version, principal) for version in found[:limit]], next_page_token=token
        )

    async def AmendAgreement(self, request: pb.AmendAgreementRequest, context: Context) -> pb.Agreement:
        async def handler(unit: UnitOfWork) -> pb.Agreement:
            row = await _require_open(unit, request.name, request.etag)
            terms = _checked(request.terms, Funding(row["funding"]), "terms.")
            newest = (await agreements.newest(unit.connection, [row]))[0]
            person = messages.person_of(unit.principal)
            version = domain.amended(newest, terms, messages.wanted_time(request.terms), person)
            return await _saved(unit, row, version)

        return await self._commands.run(request, handler)

    async def SubmitAgreement(self, request: pb.SubmitAgreementRequest, context: Context) -> pb.Agreement:
        async def handler(unit: UnitOfWork) -> pb.Agreement:
            row = await _require_open(unit, request.name, request.etag)
            newest = (await agreements.newest(unit.connection, [row]))[0]
            return await _saved(unit, row, _ruled(lambda: domain.submitted(newest)))

        return await self._commands.run(request, handler)

    async def ApproveAgreement(self, request: pb.ApproveAgreementRequest, context: Context) -> pb.Agreement:
        asked = resource_segments(request.institution, "institutions", field="institution")[0] if request.institution else ""

        async def handler(unit: UnitOfWork) -> pb.Agreement:
            await configuration.raise_version(unit.connection)
            row = await _require_open(unit, request.name, request.etag)
            sides = _sides(row)
            institution_id = asked or unit.principal.institution or ""
            if institution_id not in sides or (not unit.principal.sees_all and institution_id != unit.principal.institution):
                rule = "must name the issuer or the partner, and be your own unless you are the operator"
                raise messages.invalid([("institution", rule)], "APPROVAL_SIDE_INVALID")
            newest = (await agreements.newest(unit.connection, [row]))[0]
            person = messages.person_of(unit.principal)
            version = _ruled(lambda: domain.approved(newest, sides, institution_id, person, unit.now))
            if version.state is VersionState.APPROVED and row["state"] == AgreementState.DRAFT:
                await agreements.set_state(unit.connection, row["agreement_id"], AgreementState.ACTIVE)
            return await _saved(unit, row, version)

        return await self._commands.run(request, handler)

    async def SuspendAgreement(self, request: pb.SuspendAgreementRequest, context: Context) -> pb.Agreement:
        def change(row: asyncpg.Record, person: Person) -> AgreementState:
            return domain.suspended(AgreementState(row["state"]))

        return await self._commands.run(request, _state_change(request, change))

    async def ResumeAgreement(self, request: pb.ResumeAgreementRequest, context: Context) -> pb.Agreement:
        def change(row: asyncpg.Record, person: Person) -> AgreementState:
            stopped = Person(row["suspended_by"] or "", row["suspended_side"] or "")
            return domain.resumed(AgreementState(row["state"]), stopped, person)

        return await self._commands.run(request, _state_change(request, change))

    async def EndAgreement(self, request: pb.EndAgreementRequest, context: Context) -> pb.Agreement:
        def change(row: asyncpg.Record, person: Person) -> AgreementState:
            return AgreementState.ENDED

        return await self._commands.run(request, _state_change(request, change))

    async def AddAgreementPack(self, request: pb.AddAgreementPackRequest, context: Context) -> pb.AgreementPack:
        pack = request.agreement_pack

        async def handler(unit: UnitOfWork) -> pb.AgreementPack:
            await configuration.raise_version(unit.connection)
            row = await _require_open(unit, request.parent, "", field="parent")
            agreement_id = row["agreement_id"]
            if row["funding"] != Funding.PREPAID:
                raise FailedPrecondition("AGREEMENT_NOT_PREPAID", "only an agreement with prepaid funding has packs")
            _, payee = domain.payer_and_payee(Basis(row["basis"]), *_sides(row))
            if not unit.principal.sees_all and unit.principal.institution != payee:
                raise FailedPrecondition("PACK_STATED_BY_PAYER", f"institutions/{payee} is paid and states what it received")
            total = await agreements.packs_minor_units(unit.connection, agreement_id) + pack.minor_units
            if not 0 <= total <= domain.MINOR_UNITS_MAX:
                rule = f"must leave the sum of the packs between 0 and {domain.MINOR_UNITS_MAX}; it would be {total}"
                raise FailedPrecondition(
                    "PACKS_OUT_OF_RANGE",
                    f"agreement_pack.minor_units {rule}",
                    field_violations=[("agreement_pack.minor_units", rule)],
                )
            added = await agreements.add_pack(
                unit.connection, agreement_id, pack.minor_units, pack.reference, unit.principal.subject, unit.now
            )
            await agreements.touch(unit.connection, agreement_id)
            return messages.to_pack(added)

        return await self._commands.run(request, handler)

    async def ListAgreementPacks(self, request: pb.ListAgreementPacksRequest, context: Context) -> pb.ListAgreementPacksResponse:
        agreement_id = resource_id(request.parent, "agreements", field="parent")
        limit = pages.page_size(request.page_size, messages.PAGE_DEFAULT, messages.PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await _require(connection, current_principal(), agreement_id)
            rows = await agreements.packs(connection, agreement_id, int(keys[0]) if keys else None, limit + 1)
        token = pages.encode([str(rows[limit - 1]["pack_number"])], request) if len(rows) > limit else ""
        return pb.ListAgreementPacksResponse(
            agreement_packs=[messages.to_pack(row) for row in rows[:limit]], next_page_token=token
        )


def _state_change(request: StateRequest, change: Callable[[asyncpg.Record, Person], AgreementState]) -> Handler[pb.Agreement]:
    async def handler(unit: UnitOfWork) -> pb.Agreement:
        await configuration.raise_version(unit.connection)
        row = await _require_open(unit, request.name, request.etag)
        person = messages.person_of(unit.principal)
        state = _ruled(lambda: change(row, person))
        await agreements.set_state(unit.connection, row["agreement_id"], state, person, unit.now)
        return await _to_message(
            unit.connection, await _require(unit.connection, unit.principal, row["agreement_id"]), unit.principal
        )

    return handler


async def _require(connection: Connection, principal: Principal, agreement_id: UUID, *, lock: bool = False) -> asyncpg.Record:
    row = await agreements.get(connection, agreement_id, lock=lock)
    if row is None or not (principal.sees_all or principal.institution in _sides(row)):
        raise messages.agreement_not_found(f"agreements/{agreement_id}")
    return row


async def _require_open(unit: UnitOfWork, name: str, etag: str, field: str = "name") -> asyncpg.Record:
    """The agreement, locked, which did not end and is as the caller read it."""
    row = await _require(unit.connection, unit.principal, resource_id(name, "agreements", field=field), lock=True)
    etags.require(etag, etags.etag(row["version"]))
    if row["state"] == AgreementState.ENDED:
        raise FailedPrecondition("AGREEMENT_ENDED", f"{name} ended for good; draft a new one")
    return row


async def _saved(unit: UnitOfWork, row: asyncpg.Record, version: Version) -> pb.Agreement:
    await agreements.save_version(unit.connection, row, version, unit.now)
    await agreements.touch(unit.connection, row["agreement_id"])
    return messages.to_agreement(await _require(unit.connection, unit.principal, row["agreement_id"]), version, unit.principal)


async def _to_message(connection: Connection, row: asyncpg.Record, viewer: Principal) -> pb.Agreement:
    return messages.to_agreement(row, (await agreements.newest(connection, [row]))[0], viewer)


def _checked(message: pb.AgreementTerms, funding: Funding, prefix: str) -> domain.Terms:
    terms = messages.terms_of(message)
    wrong = domain.violations(terms, funding)
    if wrong:
        raise messages.invalid(wrong, "AGREEMENT_INVALID", prefix)
    return terms


def _sides(row: asyncpg.Record) -> tuple[str, str]:
    return row["issuer_institution_id"], row["partner_institution_id"]


def _ruled(rule: Callable[[], T]) -> T:
    """What a rule of the domain says, its refusal in the words of the platform."""
    try:
        return rule()
    except Refused as refused:
        raise messages.refusal(refused) from None
