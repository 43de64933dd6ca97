"""A client of the gateway for loaders and the demonstration: tokens, retries with one Idempotency-Key, batches, problems."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from concord_local import state as states
from concord_local import system, tokens
from concord_local.stack import AUDIENCE, Stack

BATCH_ITEMS_MAX = 500
REQUESTS_IN_FLIGHT_MAX = 16
RETRY_SECONDS_MAX = 90.0
RETRY_PAUSE_SECONDS = 0.5
PARENT_SECONDS_MAX = 60.0
PARENT_PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 30.0
TOKEN_TTL_SECONDS = 1_800
RETRIED_STATUSES = frozenset({429, 502, 503, 504})

Json = dict[str, Any]


class Problem(Exception):
    """The gateway refused a request. `body` is its RFC 9457 problem."""

    def __init__(self, path: str, body: Json) -> None:
        self.status = int(body.get("status", 0))
        self.body = body
        fields = "; ".join(f"{error.get('field')}: {error.get('description')}" for error in body.get("errors", []))
        super().__init__(f"{path} answered {self.status} {body.get('reason', '')}: {body.get('detail', '')} {fields}".strip())


@dataclass
class Outcomes:
    """Counts of what became of the items of an intake, and the refused ones with their reason."""

    counts: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[str, Json]] = field(default_factory=list)

    def add(self, results: Sequence[Json], key: str) -> None:
        """Takes the results of a batch; `key` names the field with the source's own key."""
        for result in results:
            outcome = str(result["outcome"]).removeprefix("INGEST_OUTCOME_").lower()
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
            if outcome == "rejected":
                self.refused.append((str(result[key]), dict(result["error"])))


class Gateway:
    """Calls the gateway as the callers it is told to be. Use as an async context manager."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.gateway_url
        self._issuer = stack.issuer_url
        self._key = tokens.signing_key(stack.state.private_key("issuer"))
        self._tokens: dict[tuple[str, str | None, str | None], tuple[float, str]] = {}
        self._places = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        self._client = httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_SECONDS)

    @classmethod
    def of_running_platform(cls) -> "Gateway":
        """The gateway of the platform on this machine. Raises Trouble when it does not run."""
        state = states.State(states.directory())
        if not state.is_running():
            raise system.Trouble("Concord does not run: start it with `concord up --detach`")
        return cls(Stack(state).load())

    async def __aenter__(self) -> "Gateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def token(self, kind: str, institution: str | None = None, customer: str | None = None) -> str:
        """An access token with every scope of the kind, made anew before it expires."""
        expires_at, token = self._tokens.get((kind, institution, customer), (0.0, ""))
        if time.monotonic() > expires_at:
            caller = tokens.Caller(
                kind, "concord-loader", "concord-loader", institution, tokens.default_scopes(kind), (), customer
            )
            token = tokens.access_token(self._key, self._issuer, AUDIENCE, caller, TOKEN_TTL_SECONDS)
            self._tokens[kind, institution, customer] = (time.monotonic() + TOKEN_TTL_SECONDS / 2, token)
        return token

    async def get(self, path: str, token: str, **parameters: str) -> Json:
        """Reads."""
        return await self._call("GET", path, token, params=parameters)

    async def post(
        self, path: str, token: str, body: Json, request_id: str | None = None, etag: str | None = None, **parameters: str
    ) -> Json:
        """Writes, once: every retry carries the same Idempotency-Key (a new one unless `request_id` is given)."""
        headers = {"Idempotency-Key": request_id or uuid.uuid4().hex} | ({"If-Match": etag} if etag else {})
        return await self._call("POST", path, token, params=parameters, headers=headers, json=body)

    async def put(self, path: str, token: str, body: Json) -> Json:
        """Makes an object what the body says."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._call("PUT", path, token, headers=headers, json=body)

    async def ask(self, path: str, token: str, body: Json) -> Json:
        """A POST that changes nothing."""
        return await self._call("POST", path, token, json=body)

    async def create(self, path: str, token: str, body: Json, **parameters: str) -> bool:
        """Creates unless it is there; answers whether it was created.

        What it belongs to may have been created a moment ago in another service, which learns of it by event: a 404 is
        tried again for a while.
        """
        deadline = time.monotonic() + PARENT_SECONDS_MAX
        while True:
            try:
                await self.post(path, token, body, **parameters)
            except Problem as problem:
                if problem.status == httpx.codes.CONFLICT:
                    return False
                if problem.status != httpx.codes.NOT_FOUND or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(PARENT_PAUSE_SECONDS)
            else:
                return True

    async def post_batches(
        self, path: str, token: str, field_name: str, items: Sequence[Json], key: str, show: "Task", outcomes: Outcomes
    ) -> list[Json]:
        """Sends items in batches of 500, several at once; answers all results in the order of the items."""

        async def send(first: int) -> list[Json]:
            batch = items[first : first + BATCH_ITEMS_MAX]
            answer = await self.post(path, token, {field_name: batch})
            outcomes.add(answer["results"], key)
            show.advance(len(batch))
            return list(answer["results"])

        batches = await asyncio.gather(*(send(first) for first in range(0, len(items), BATCH_ITEMS_MAX)))
        return [result for batch in batches for result in batch]

    async def _call(self, method: str, path: str, token: str, **arguments: Any) -> Json:
        headers = {"Authorization": f"Bearer {token}", **arguments.pop("headers", {})}
        deadline = time.monotonic() + RETRY_SECONDS_MAX
        while True:
            async with self._places:
                try:
                    response = await self._client.request(method, path, headers=headers, **arguments)
                except httpx.TransportError as error:
                    if time.monotonic() > deadline:
                        raise system.Trouble(f"the gateway at {self.url} does not answer ({type(error).__name__}): see `concord status`") from error  # fmt: skip # noqa: E501
                    response = None
            if response is not None and (response.status_code not in RETRIED_STATUSES or time.monotonic() > deadline):
                break
            pause = (
                float(response.headers.get("Retry-After", RETRY_PAUSE_SECONDS)) if response is not None else RETRY_PAUSE_SECONDS
            )
            await asyncio.sleep(min(pause, RETRY_SECONDS_MAX))
        if response.is_error:
            try:
                body = response.json()
            except ValueError:
                body = {"status": response.status_code, "detail": "the answer is no problem document"}
            raise Problem(path, body)
        return dict(response.json())


@dataclass
class Task:
    """One line of the progress display."""

    progress: Progress
    number: Any

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.progress.advance(self.number, count)

    def total(self, count: int) -> None:
        """So many there are in all."""
        self.progress.update(self.number, total=count)


class Display:
    """Progress bars, one for each step."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns)

    def step(self, description: str, total: int | None) -> Task:
        """Begins a step."""
        return Task(self.progress, self.progress.add_task(description, total=total))


async def until_still(read: Any, task: Task, seconds_max: float = 60.0) -> Any:
    """Reads a number again and again until it has not moved for a second, or the time is up; shows it. Returns the last one."""
    last, still_since, deadline = None, time.monotonic(), time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        now = await read()
        if now != last:
            last, still_since = now, time.monotonic()
            task.progress.update(task.number, completed=now)
        elif time.monotonic() - still_since > 1.5:
            break
        await asyncio.sleep(0.3)
    task.total(last or 0)
    return last


async def patiently(call: Any, seconds_max: float = 3.0) -> Any:
    """Calls until what it needs has arrived by event; None when it never does: not the bank's customer."""
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            return await call()
        except Problem as problem:
            if problem.status != 404 or time.monotonic() > deadline:
                if problem.status == 404:
                    return None
                raise
        await asyncio.sleep(0.2)


async def operations_count(gateway: Gateway) -> int:
    """How many operations the ledger has."""
    return int((await gateway.ask("/v1/invariants:verify", gateway.token("operator"), {})).get("operationsCount", 0))
