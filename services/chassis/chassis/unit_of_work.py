"""The one write path: state, idempotency record and outbox rows in one transaction."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message

from chassis import answers, clock, outbox
from chassis.database import RETRYABLE_ERRORS, Connection, Database, is_unavailable
from chassis.errors import DomainError, FailedPrecondition, InvalidArgument
from chassis.identity import Principal, current_principal
from chassis.methods import Method, current_method
from chassis.outbox import Event

RESPONSE_KEPT = timedelta(days=7)
REQUEST_ID_CHARACTERS_MAX = 255
ATTEMPTS_MAX = 3
INPUT_HASH_BYTES = 16
SECRET_BYTES = ANSWER_KEY_BYTES = 32
NONCE_BYTES = 12
_SECRET_OF_PROCESS = secrets.token_bytes(SECRET_BYTES)

M = TypeVar("M", bound=Message)
Answer: TypeAlias = Message | DomainError


@dataclass(slots=True)
class UnitOfWork:
    """One transaction. A handler touches nothing else: it may be run again after a deadlock.

    `principal` is None in background work and behind a gatherer, where each call has its own.
    """

    connection: Connection
    now: datetime
    epoch: int
    """Of this database; goes into the StateVersion of state events."""
    caller: Principal | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def principal(self) -> Principal:
        """The caller.

        Raises:
            RuntimeError: in background work and behind a gatherer.
        """
        if self.caller is None:
            raise RuntimeError("this unit of work has no caller")
        return self.caller

    def publish(self, event: Event) -> None:
        """Adds an event: it leaves when, and only when, this transaction commits."""
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Call:
    """A mutation as it came in: captured where the caller is known, run perhaps in a batch with others."""

    method: Method
    request: Any
    principal: Principal
    input_hash: bytes
    answer_key: bytes = field(repr=False)
    """Derived from the request itself and the service's secret: who repeats the request can be answered, a reader of the tables
    or their backups cannot read what was answered."""

    def kept(self, response: Message) -> tuple[bytes, list[int]]:
        """The answer as it is kept: sealed, and which ids the request and it name."""
        nonce, content = os.urandom(NONCE_BYTES), response.SerializeToString()
        named = answers.numbers_named(self.request.SerializeToString(), content)
        return nonce + AESGCM(self.answer_key).encrypt(nonce, content, None), sorted(named)

    @property
    def key(self) -> tuple[str, str, str]:
        """Whose request this is, of what, and which: the scope of idempotency."""
        return self.principal.caller, self.method.path, self.request.request_id

    def stored(self, input_hash: bytes, sealed: bytes) -> Message:
        """The answer that was given before.

        Raises:
            FailedPrecondition: REQUEST_ID_REUSED, when the input was another; ANSWER_UNREADABLE, when the service got another
                private key since.
        """
        if input_hash != self.input_hash:
            raise FailedPrecondition(
                "REQUEST_ID_REUSED",
                "this request_id was used with other input; use a new one for a new request",
                field_violations=[("request_id", "was used with other input")],
            )
        try:
            response = AESGCM(self.answer_key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except InvalidTag:
            raise FailedPrecondition(
                "ANSWER_UNREADABLE",
                "this request was carried out before, and its answer can no longer be read; read what it made instead",
            ) from None
        return self.method.response_class.FromString(response)


Handler: TypeAlias = Callable[[UnitOfWork], Awaitable[M]]
ManyHandler: TypeAlias = Callable[[UnitOfWork, list[Call]], Awaitable[Sequence[Answer]]]


class Commands:
    """Runs mutations. `outbox_wake` is set after each commit that left events, so that the relay need not wait for its poll."""

    def __init__(self, database: Database, outbox_wake: asyncio.Event | None = None, clock: clock.Clock = clock.now) -> None:
        self.database = database
        self.outbox_wake = outbox_wake or asyncio.Event()
        self._clock = clock
        self._secret = _SECRET_OF_PROCESS

    def bind(self, secret: str) -> None:
        """Seals stored answers under a secret that all replicas of the service share: its private key."""
        self._secret = hashlib.blake2b(secret.encode(), digest_size=SECRET_BYTES, person=b"stored-answers").digest()

    def call(self, request: Message) -> Call:
        """The present call: method and caller of the RPC being served, with its request.

        Raises:
            InvalidArgument: REQUEST_ID_INVALID.
        """
        method, principal = current_method(), current_principal()
        digest = _digest(request)
        whose = "\0".join((principal.caller, method.path, request.request_id)).encode()  # type: ignore[attr-defined]
        answer_key = hashlib.blake2b(digest[INPUT_HASH_BYTES:] + whose, digest_size=ANSWER_KEY_BYTES, key=self._secret).digest()
        return Call(method, request, principal, digest[:INPUT_HASH_BYTES], answer_key)

    async def run(self, request: Message, handler: Handler[M], *, keep_for_ever: bool = False) -> M:
        """Runs a mutation once for each request_id: the handler, the stored answer and the events commit together.

        A concurrent duplicate waits and gets the same answer. A raised error keeps nothing.

        Args:
            request: has a `request_id`.
            handler: given the unit of work, makes the change and the response.
            keep_for_ever: keeps the record of this request for ever instead of 7 days.

        Raises:
            InvalidArgument: REQUEST_ID_INVALID.
            FailedPrecondition: REQUEST_ID_REUSED.
        """
        call = self.call(request)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return await self._run_once(call, handler, keep_for_ever)
            except RETRYABLE_ERRORS:
                if attempt == ATTEMPTS_MAX:
                    raise
        raise AssertionError("unreachable")

    async def _run_once(self, call: Call, handler: Handler[M], keep_for_ever: bool) -> M:
        async with self.database.transaction() as connection:
            now = self._clock()
            caller, path, request_id = call.key
            expires_at = None if keep_for_ever else now + RESPONSE_KEPT
            inserted = await connection.fetchval(
                "INSERT INTO idempotency (caller, method, request_id, input_hash, expires_at) VALUES ($1, $2, $3, $4, $5)"
                " ON CONFLICT DO NOTHING RETURNING true",
                caller, path, request_id, call.input_hash, expires_at,
            )  # fmt: skip
            if not inserted:
                row = await connection.fetchrow(
                    "SELECT input_hash, response FROM idempotency WHERE caller = $1 AND method = $2 AND request_id = $3",
                    caller, path, request_id,
                )  # fmt: skip
                assert row is not None
                return cast(M, call.stored(row["input_hash"], row["response"]))
            unit = UnitOfWork(connection, now, self.database.epoch, call.principal)
            response = await handler(unit)
            await connection.execute(
                _STORE_ONE_WITH_EVENTS if unit.events else _STORE_ONE,
                caller, path, request_id, *call.kept(response),
                *(outbox.arrays(unit.events, now) if unit.events else ()),
            )  # fmt: skip
        if unit.events:
            self.outbox_wake.set()
        return response

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work without a caller or request id, for background work: the same transaction, the same outbox."""
        async with self.database.transaction() as connection:
            unit = UnitOfWork(connection, self._clock(), self.database.epoch)
            yield unit
            if unit.events:
                await outbox.write(connection, unit.events, unit.now)
        if unit.events:
            self.outbox_wake.set()

    async def run_many(
        self, calls: Sequence[Call], handler: ManyHandler, *, keep_for_ever: bool = False
    ) -> list[Message | Exception]:
        """Runs a batch of mutations in one transaction and answers each, in order; made for a `Gatherer`.

        Duplicates inside the batch and of earlier requests get the stored answer. The handler sees fresh calls only and
        answers each with a response or a DomainError, which refuses that call alone. When the handler raises, each call is run
        alone, so that a bad one cannot take the others down.
        """
        distinct: dict[tuple[str, str, str], Call] = {}
        for call in calls:
            distinct.setdefault(call.key, call)
        answers = await self._run_batch(list(distinct.values()), handler, keep_for_ever)
        results: list[Message | Exception] = []
        for call in calls:
            first, answer = distinct[call.key], answers[call.key]
            if first is not call and first.input_hash != call.input_hash:
                try:
                    call.stored(first.input_hash, b"")
                except DomainError as reused:
                    answer = reused
            results.append(answer)
        return results

    async def _run_batch(
        self, calls: list[Call], handler: ManyHandler, keep_for_ever: bool
    ) -> dict[tuple[str, str, str], Message | Exception]:
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self._run_batch_once(calls, handler, keep_for_ever)
            except RETRYABLE_ERRORS as error:
                failure: Exception = error
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is the answer of its call
                failure = error
                break
        if len(calls) == 1 or is_unavailable(failure):
            return {call.key: failure for call in calls}
        answers: dict[tuple[str, str, str], Message | Exception] = {}
        for call in calls:
            answers |= await self._run_batch([call], handler, keep_for_ever)
        return answers

    async def _run_batch_once(
        self, calls: list[Call], handler: ManyHandler, keep_for_ever: bool
    ) -> dict[tuple[str, str, str], Message | Exception]:
        # Two batches with the same requests must insert them in the same order, or they wait for each other.
        calls = sorted(calls, key=lambda call: call.key)
        keys = [list(column) for column in zip(*(call.key for call in calls), strict=True)]
        answers: dict[tuple[str, str, str], Message | Exception] = {}
        async with self.database.transaction() as connection:
            now = self._clock()
            unit = UnitOfWork(connection, now, self.database.epoch)
            expires_at = None if keep_for_ever else now + RESPONSE_KEPT
            inserted = await connection.fetch(_INSERT_MANY, *keys, [call.input_hash for call in calls], expires_at)
            fresh_keys = {(row["caller"], row["method"], row["request_id"]) for row in inserted}
            if len(fresh_keys) < len(calls):
                by_key = {call.key: call for call in calls}
                for row in await connection.fetch(_SELECT_MANY, *keys):
                    key = (row["caller"], row["method"], row["request_id"])
                    if key not in fresh_keys:
                        answers[key] = _stored_or_error(by_key[key], row["input_hash"], row["response"])
            fresh = [call for call in calls if call.key in fresh_keys]
            if fresh:
                given = await handler(unit, fresh)
                if len(given) != len(fresh):
                    raise RuntimeError(f"the handler gave {len(given)} answers for {len(fresh)} calls")
                answers.update(zip((call.key for call in fresh), given, strict=True))
                await _store_many(unit, fresh, given)
        if unit.events:
            self.outbox_wake.set()
        return answers


def _stored_or_error(call: Call, input_hash: bytes, response: bytes) -> Message | Exception:
    try:
        return call.stored(input_hash, response)
    except DomainError as error:
        return error


async def _store_many(unit: UnitOfWork, calls: list[Call], given: Sequence[Answer]) -> None:
    kept = [
        (None, []) if isinstance(answer, DomainError) else call.kept(answer) for call, answer in zip(calls, given, strict=True)
    ]
    stored = [response for response, _ in kept]
    # As text, because an array of arrays would need them to have the same length.
    named = ["{" + ",".join(map(str, numbers)) + "}" for _, numbers in kept]
    keys = [list(column) for column in zip(*(call.key for call in calls), strict=True)]
    statement = _STORE_MANY_WITH_EVENTS if unit.events else _STORE_MANY
    events = outbox.arrays(unit.events, unit.now) if unit.events else ()
    await unit.connection.execute(statement, *keys, stored, named, *events)
    if None in stored:
        # A refusal is decided anew when it is sent again.
        refused = [call.key for call, response in zip(calls, stored, strict=True) if response is None]
        await unit.connection.execute(_DELETE_MANY, *(list(column) for column in zip(*refused, strict=True)))


def _digest(request: Any) -> bytes:
    """Hash of the request without its id: the beginning is kept to know the request again, the rest is kept nowhere."""
    request_id: str = request.request_id
    if not 0 < len(request_id) <= REQUEST_ID_CHARACTERS_MAX:
        rule = f"must be 1 to {REQUEST_ID_CHARACTERS_MAX} characters, new for each new request"
        raise InvalidArgument("REQUEST_ID_INVALID", f"request_id {rule}", field_violations=[("request_id", rule)])
    request.ClearField("request_id")
    content = request.SerializeToString(deterministic=True)
    request.request_id = request_id
    return hashlib.blake2b(content).digest()


def _insert_events(first: int) -> str:
    source = outbox.ROWS_FROM_ARRAYS.format(*(f"${i}" for i in range(first, first + 8)))
    return f"INSERT INTO outbox ({outbox.COLUMNS}) SELECT * FROM {source}"


_KEYS = "unnest($1::text[], $2::text[], $3::text[])"
_STORE_ONE = "UPDATE idempotency SET response = $4, named_numbers = $5 WHERE caller = $1 AND method = $2 AND request_id = $3"
_STORE_ONE_WITH_EVENTS = f"WITH stored AS ({_STORE_ONE}) {_insert_events(6)}"
_INSERT_MANY = (
    "INSERT INTO idempotency (caller, method, request_id, input_hash, expires_at)"
    " SELECT caller, method, request_id, input_hash, $5::timestamptz"
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS call (caller, method, request_id, input_hash)"
    " ON CONFLICT DO NOTHING RETURNING caller, method, request_id"
)
_SELECT_MANY = (
    "SELECT caller, method, request_id, input_hash, response FROM idempotency"
    f" WHERE (caller, method, request_id) IN (SELECT * FROM {_KEYS})"
)
_STORE_MANY = (
    "UPDATE idempotency i SET response = call.response, named_numbers = call.named_numbers::bigint[]"
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])"
    " AS call (caller, method, request_id, response, named_numbers)"
    " WHERE i.caller = call.caller AND i.method = call.method AND i.request_id = call.request_id"
)
_STORE_MANY_WITH_EVENTS = f"WITH stored AS ({_STORE_MANY}) {_insert_events(6)}"
_DELETE_MANY = f"DELETE FROM idempotency WHERE (caller, method, request_id) IN (SELECT * FROM {_KEYS})"
