"""Figures of the whole platform, run as `concord up` runs it."""

import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from running import Platform

from bench.alliance import PARTNERS, PROGRAM, Alliance
from bench.figures import Report
from bench.machine import Echo, caller
from bench.processes import Broken, Helper, Json, Loads, Neighbours, encoded, proportional_bytes, resident_bytes, with_children
from chassis.identity import GATEWAY, InternalTokens
from concord.customer.v1.customer_service_pb2 import GetCustomerRequest
from concord.loyalty.v1.ledger_service_pb2 import RedeemPointsRequest
from concord_local import population, system
from concord_local.population import BANK
from concord_local.stack import SERVICES

ROUNDS = 5
ACTIVITY_ROUNDS = 3
LOAD_SECONDS = 1.2
PEOPLE = 500
READ_CLIENTS = (16, 64)
REDEEM_CLIENTS = 64
HTTP_CLIENTS = 32
REQUEST_ID_FIELD = RedeemPointsRequest.DESCRIPTOR.fields_by_name["request_id"].number
IDLE_SECONDS = 4.0
READ_GOAL, REDEEM_GOAL, GATEWAY_GOAL = 0.6, 0.3, 0.9
ACTIVITIES_GOAL = 2_000
IDLE_MEGABYTES_MAX, BUSY_MEGABYTES_MAX = 150, 400
COLD_SECONDS_MAX = 20
PYTHON_PROGRAMS = (*SERVICES, "gateway")
GET_CUSTOMER, REDEEM = "/concord.customer.v1.CustomerService/GetCustomer", "/concord.loyalty.v1.LedgerService/RedeemPoints"
# The bench is one client that asks for more than any single client may.
UNLIMITED = {"CONCORD_RATE_REQUESTS_PER_SECOND": "1000000", "CONCORD_RATE_BURST_REQUESTS": "1000000"}

Step = Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]


async def measure(report: Report, echo: Echo, loads: Loads, scale: float, step: Step) -> None:
    """All figures that need the platform; `step` keeps what broke and goes on."""
    with _state_folder() as folder:
        bench = Bench(report, Platform(folder), echo, loads, scale)
        try:
            await step("start", bench.measure_start)
            if not report.broken or bench.is_up:
                await bench.measure_all(step)
        finally:
            bench.platform.run("down", check=False)


class Bench:
    """One running platform and what is asked of it."""

    def __init__(self, report: Report, platform: Platform, echo: Echo, loads: Loads, scale: float) -> None:
        platform.environment |= UNLIMITED
        platform.environment.setdefault("CONCORD_CUSTOMER_INDEX_KEY", secrets.token_hex(32))
        self.report = report
        self.platform = platform
        self.echo = echo
        self.loads = loads
        self.seconds = LOAD_SECONDS * scale
        self.scale = scale
        self.is_up = False
        self._idle_bytes: dict[str, int] = {}

    async def measure_start(self) -> None:
        """`concord up --detach` in an empty folder, and again."""
        started = time.perf_counter()
        self.platform.up()
        cold = time.perf_counter() - started
        self.platform.down()
        started = time.perf_counter()
        self.platform.up()
        warm = time.perf_counter() - started
        self.is_up = True
        section = "start (concord up)"
        more = {"goal": COLD_SECONDS_MAX, "at_most": True, "note": "makes cluster, keys, databases, tables"}
        self.report.add(section, "cold", [cold], "s", **more)
        self.report.add(section, "warm", [warm], "s")
        time.sleep(IDLE_SECONDS)  # noqa: ASYNC251 - nothing else runs, and nothing else shall
        self._idle_bytes = {program: resident_bytes(self.platform.pid(program)) for program in (*PYTHON_PROGRAMS, "nats")}

    async def measure_all(self, step: Step) -> None:
        """What needs customers; without them nothing can be measured."""
        people = [person for person in population.people(2 * PEOPLE) if BANK in person.institutions]
        async with self.platform.gateway() as gateway:
            alliance = Alliance(self.platform, gateway, people[: max(50, round(PEOPLE * self.scale))])
            await step("founding the alliance", alliance.found)
            if alliance.accounts:
                await step("activities", lambda: self.measure_activities(alliance))
                await step("reads", lambda: self.measure_reads(alliance))
                await step("gateway", lambda: self.measure_gateway(alliance))
                await step("redemptions", lambda: self.measure_redemptions(alliance))
        await step("memory", self.measure_memory)

    async def measure_activities(self, alliance: Alliance) -> None:
        """From the gateway until folded by rating and loyalty."""
        taken_rates, folded_rates, count = [], [], 0
        neighbours = self._neighbours()
        for _ in range(ACTIVITY_ROUNDS):
            bodies = alliance.activities()
            started = time.perf_counter()
            count = await alliance.record(bodies)
            taken_rates.append(count / (time.perf_counter() - started))
            await alliance.until_folded()
            folded_rates.append(count / (time.perf_counter() - started))
        await alliance.verify()
        section, note = "activities through the platform", f"{count:,} a round, batches of 500, 4 at once; 12 of 29 earn points"
        self.report.add(section, "taken by activities:record", taken_rates, "/s", note=note)
        note = f"published, folded, every customer rated anew; others used {neighbours.cores():.1f} cores"
        self.report.add(section, "until folded by rating and loyalty", folded_rates, "/s", goal=ACTIVITIES_GOAL, note=note)

    async def measure_reads(self, alliance: Alliance) -> None:
        """GetCustomer beside the echo."""
        requests = encoded(GetCustomerRequest(name=name).SerializeToString() for name in alliance.customers)
        for clients in READ_CLIENTS:
            sides = {
                "echo": (self._echo_order(clients), self.echo.helper.pid),
                "GetCustomer": (self._order("customer", GET_CUSTOMER, requests, clients), self.platform.pid("customer")),
            }
            section = f"read RPC / echo, {clients} clients"
            await self._compare(section, sides, READ_GOAL)

    async def measure_redemptions(self, alliance: Alliance) -> None:
        """RedeemPoints beside the echo: over eight partners, and all at one."""
        sides = {"echo": (self._echo_order(REDEEM_CLIENTS), self.echo.helper.pid)}
        for name, partners in (("RedeemPoints, 8 partners", PARTNERS), ("RedeemPoints, 1 hot partner", PARTNERS[:1])):
            requests = encoded(
                RedeemPointsRequest(
                    name=account, program=f"programs/{PROGRAM}", amount_points=1, institution=f"institutions/{partner}"
                ).SerializeToString()
                for account in alliance.accounts
                for partner in partners
            )
            order = self._order("loyalty", REDEEM, requests, REDEEM_CLIENTS) | {"unique_field": REQUEST_ID_FIELD}
            sides[name] = (order, self.platform.pid("loyalty"))
        await self._compare(f"redeem RPC / echo, {REDEEM_CLIENTS} clients", sides, REDEEM_GOAL)
        await alliance.verify()

    async def measure_gateway(self, alliance: Alliance) -> None:
        """GET of a customer through the gateway, beside a handler written by hand, both before the same service."""
        async with self._plain_gateway() as (port, pid):
            ours = urlsplit(self.platform.stack.gateway_url)
            authorization = f"Authorization: Bearer {alliance.bank_token}\r\n"
            sides = {
                "handler by hand": (_http_order(port, alliance.customers, ""), pid),
                "gateway": (_http_order(ours.port or 80, alliance.customers, authorization), self.platform.pid("gateway")),
            }
            await self._compare(f"gateway GET / handler by hand, {HTTP_CLIENTS} clients", sides, GATEWAY_GOAL)

    async def measure_memory(self) -> None:
        """Resident memory of each process: idle after the start, and the most it ever had under the load."""
        idle, busy = "memory, idle", "memory, peak under the bench"
        for program, count in self._idle_bytes.items():
            goal = {"goal": IDLE_MEGABYTES_MAX, "at_most": True} if program in PYTHON_PROGRAMS else {}
            self.report.add(idle, program, [count / (1 << 20)], "MB", **goal)
        for program in self._idle_bytes:
            goal = {"goal": BUSY_MEGABYTES_MAX, "at_most": True} if program in PYTHON_PROGRAMS else {}
            self.report.add(busy, program, [resident_bytes(self.platform.pid(program), peak=True) / (1 << 20)], "MB", **goal)
        tree = with_children(self.platform.pid("postgres"))
        note = f"{len(tree)} processes, shared pages counted once"
        self.report.add(busy, "postgres (at the end)", [proportional_bytes(tree) / (1 << 20)], "MB", note=note)

    # ---- inside

    async def _compare(self, section: str, sides: dict[str, tuple[Json, int]], goal: float) -> None:
        """Runs the sides in turn, several rounds; the first side is what the others are divided by."""
        rounds: list[dict[str, Json]] = []
        neighbours = self._neighbours()
        for _ in range(ROUNDS):
            answers = {}
            for name, (order, pid) in sides.items():
                answers[name] = await self.loads.run(order | {"seconds": self.seconds}, pid)
            rounds.append(answers)
        cores = neighbours.cores()
        base, *others = sides
        for name in sides:
            answers_of = [answers[name] for answers in rounds]
            cpu = sorted(answer["server_cpu_us"] for answer in answers_of)[len(rounds) // 2]
            p50, p99 = (sorted(answer[key] for answer in answers_of)[len(rounds) // 2] for key in ("p50_ms", "p99_ms"))
            note = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu:.0f} µs CPU of the process a call"
            note += f"; others used {cores:.1f} cores" if name == base else ""
            self.report.add(section, name, [answer["per_second"] for answer in answers_of], "/s", note=note)
        for name in others:
            ratios = [answers[name]["per_second"] / answers[base]["per_second"] for answers in rounds]
            self.report.add(section, f"{name} / {base}", ratios, goal=goal)

    def _neighbours(self) -> Neighbours:
        return Neighbours([int(self.platform.state.status()["pid"])])

    def _echo_order(self, clients: int) -> Json:
        requests = encoded([GetCustomerRequest(name=f"customers/{'0' * 8}-0000-7000-8000-{'0' * 12}").SerializeToString()])
        return _grpc_order(self.echo.address, GET_CUSTOMER, self.echo.token(), requests, clients)

    def _order(self, service: str, method: str, requests: list[str], clients: int) -> Json:
        target = f"{system.LOOPBACK}:{self.platform.stack.ports[f'{service}-grpc']}"
        return _grpc_order(target, method, self._internal_token(), requests, clients)

    def _internal_token(self) -> str:
        """What the gateway would send for the bank's application; valid for five minutes."""
        state = self.platform.state
        tokens = InternalTokens(GATEWAY, state.identities.read_text(), state.private_key(GATEWAY).read_text())
        return tokens.sign(caller(BANK))

    @asynccontextmanager
    async def _plain_gateway(self) -> AsyncIterator[tuple[int, int]]:
        port = system.free_port()
        told = {
            "BENCH_PORT": str(port),
            "BENCH_TARGET": f"{system.LOOPBACK}:{self.platform.stack.ports['customer-grpc']}",
            "BENCH_TOKEN": self._internal_token(),
        }
        async with Helper("plain_gateway", told) as helper:
            deadline = time.monotonic() + 10
            while system.is_free(port):
                if time.monotonic() > deadline:
                    raise Broken("the handler written by hand does not listen")
            yield port, helper.pid


@contextmanager
def _state_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="concord-bench-state-"))
    folder.chmod(0o711)  # PostgreSQL's account must pass through
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _grpc_order(target: str, method: str, token: str, requests: list[str], clients: int) -> Json:
    return {"kind": "grpc", "target": target, "method": method, "token": token, "requests": requests, "clients": clients}


def _http_order(port: int, customers: list[str], headers: str) -> Json:
    requests = encoded(f"GET /v1/{name} HTTP/1.1\r\nHost: {system.LOOPBACK}\r\n{headers}\r\n".encode() for name in customers)
    return {"kind": "http", "host": system.LOOPBACK, "port": port, "requests": requests, "clients": HTTP_CLIENTS}
