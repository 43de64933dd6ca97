"""Settlement through the contract: cut-off, netting, confirmation, payments, files; each institution sees its own."""

import csv
import hashlib
import io
import random
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import asyncpg
import grpc
import pytest

from chassis.testing import reason
from concord.loyalty.v1 import loyalty_events_pb2 as events_pb
from concord.loyalty.v1 import settlement_service_pb2 as pb
from loyalty import settlement_files, settling
from loyalty.settling import Settler
from loyalty.store import settlement as store

MAY = datetime(2026, 5, 1, tzinfo=UTC)


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


def exact(amount: pb.ExactAmount) -> Fraction:
    return Fraction(int(amount.numerator), int(amount.denominator))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_from_open_to_settled(house):
    agreement = await house.agreement("bank", "shop", price=(3, 2), fee=100)
    await house.items((agreement, "bank", "shop", "bank-points", 101), (agreement, "bank", "shop", "bank-points", -1))
    assert await Settler(house.commands).step() == []  # no cut-off has passed
    [opened] = (await house.settlements("bank").ListSettlements(house.listing("bank"))).settlements
    preview = await house.settlements("bank").GetSettlement(pb.GetSettlementRequest(name=opened.name))
    assert (preview.state, preview.items_count, preview.points) == (pb.SETTLEMENT_STATE_OPEN, 2, 100)
    assert await refused(house.confirm("bank", opened.name)) == "SETTLEMENT_OPEN"
    whole = opened.name.replace("bank", "-")
    closed = await house.close(whole)
    assert closed.state == pb.SETTLEMENT_STATE_CLOSED
    assert [(line.kind, line.payer, exact(line.amount)) for line in closed.lines] == [
        (pb.SETTLEMENT_LINE_KIND_PRINCIPAL, "institutions/bank", 150),
        (pb.SETTLEMENT_LINE_KIND_FEE, "institutions/shop", Fraction(3, 2)),
    ]
    [pair] = closed.pairs
    assert (pair.amount.minor_units, exact(pair.exact_amount), exact(pair.residue)) == (148, Fraction(297, 2), Fraction(-1, 2))
    assert [(p.institution, p.amount.minor_units) for p in closed.positions] == [
        ("institutions/bank", -148), ("institutions/shop", 148),
    ]  # fmt: skip
    [payment] = closed.instructions
    assert (payment.payer, payment.payee, payment.amount.minor_units) == ("institutions/bank", "institutions/shop", 148)
    assert await refused(house.close(whole)) == "SETTLEMENT_NOT_OPEN"
    shop = opened.name.replace("bank", "shop")
    assert await refused(house.acknowledge("shop", shop, "bank")) == "SETTLEMENT_NOT_CONFIRMED"
    assert (await house.confirm("bank", opened.name)).state == pb.SETTLEMENT_STATE_CLOSED
    assert (await house.confirm("bank", opened.name)).state == pb.SETTLEMENT_STATE_CLOSED  # again changes nothing
    confirmed = await house.confirm("shop", shop, counterparty="institutions/bank")
    assert confirmed.state == pb.SETTLEMENT_STATE_CONFIRMED
    assert await refused(house.acknowledge("bank", opened.name, "shop")) == "PAYMENT_NOT_FOUND"
    settled = await house.acknowledge("shop", shop, "bank")
    assert (settled.state, settled.instructions[0].HasField("acknowledge_time")) == (pb.SETTLEMENT_STATE_SETTLED, True)
    types = [event.type.rpartition(".")[2] for event in await house.running.events() if ".settlement." in event.type]
    assert types == ["closed", "confirmed", "settled"]
    [event] = await house.running.events("concord.loyalty.v1.settlement.closed")
    message = event.message(events_pb.SettlementClosed)
    assert (list(message.institution_ids), message.cut_off_sequence) == (["bank", "shop"], closed.cut_off_sequence)
    # The next one is open already, and has nothing.
    [following] = (await house.settlements().ListSettlements(house.listing("-", state=pb.SETTLEMENT_STATE_OPEN))).settlements
    assert await refused(house.close(following.name)) == "NOTHING_TO_SETTLE"


async def test_nobody_sees_or_does_what_is_between_others(house):
    with_shop = await house.agreement("bank", "shop")
    with_broker = await house.agreement("bank", "broker")
    await house.items((with_shop, "bank", "shop", "bank-points", 10), (with_broker, "bank", "broker", "bank-points", 7))
    name = await house.closed()
    theirs = await house.settlements("shop").GetSettlement(pb.GetSettlementRequest(name=name.replace("/-/", "/shop/")))
    assert "broker" not in str(theirs)
    assert (theirs.items_count, theirs.points, len(theirs.pairs), len(theirs.positions)) == (1, 10, 1, 1)
    text = await house.download("shop", name)
    assert "broker" not in text
    assert [row["points"] for row in rows_of(text) if row["record"] == "ITEM"] == ["10"]
    items = await house.settlements("shop").ListSettlementItems(
        pb.ListSettlementItemsRequest(parent=name.replace("/-/", "/shop/"))
    )
    assert [item.points for item in items.settlement_items] == [10]
    await house.found("cafe")
    stranger, shop = house.settlements("cafe"), house.settlements("shop")
    for other in ("/cafe/", "/bank/"):
        asked = name.replace("/-/", other)
        expected = "SETTLEMENT_NOT_FOUND" if other == "/cafe/" else "INSTITUTION_NOT_FOUND"
        for call in (
            stranger.GetSettlement(pb.GetSettlementRequest(name=asked)),
            stranger.ListSettlementItems(pb.ListSettlementItemsRequest(parent=asked)),
            stranger.GetSettlementFile(pb.GetSettlementFileRequest(name=f"{asked}/file")),
            stranger.DownloadSettlementFile(pb.DownloadSettlementFileRequest(name=f"{asked}/file")),
            house.confirm("cafe", asked),
            house.acknowledge("cafe", asked, "bank"),
            house.reconciliations("cafe").CreateReconciliation(
                pb.CreateReconciliationRequest(parent=asked, request_id=house.request_id())
            ),
        ):
            assert await refused(call) == expected
    assert await refused(shop.GetSettlement(pb.GetSettlementRequest(name=name))) == "INSTITUTION_NOT_FOUND"
    assert await refused(shop.CloseSettlement(house.asking(pb.CloseSettlementRequest, name))) == "KIND_NOT_ADMITTED"
    assert [s.name for s in (await stranger.ListSettlements(house.listing("cafe"))).settlements if s.close_time.seconds] == []
    shops = name.replace("/-/", "/shop/")
    assert await refused(house.confirm("shop", shops, counterparty="institutions/broker")) == "PAIR_NOT_FOUND"


class ByHand:
    """Four institutions over a month, added up the way a person would: a list of items and four sums."""

    def __init__(self) -> None:
        self.owed: dict[frozenset[str], dict[str, Fraction]] = {}

    def item(self, payer: str, payee: str, points: int, price: Fraction, fee: Fraction) -> None:
        pair = self.owed.setdefault(frozenset((payer, payee)), {payer: Fraction(0), payee: Fraction(0)})
        pair[payer] += points * price  # what the payer owes
        pair[payee] += points * price * fee  # what the payee gives back

    def settle(self) -> dict[str, int]:
        """What each institution gets; every pair is rounded once, half to even."""
        gets: dict[str, int] = {}
        for owed in self.owed.values():
            (one, first), (other, second) = sorted(owed.items())
            amount, half = divmod(first - second, 1)
            amount += half > Fraction(1, 2) or (half == Fraction(1, 2) and amount % 2)
            gets[one] = gets.get(one, 0) - int(amount)
            gets[other] = gets.get(other, 0) + int(amount)
        self.owed = {}
        return gets


async def test_a_month_between_four_institutions_adds_up(house, clock):
    """Each day items, some given back; each night the cut-off of Prague; at the end every sum is made again from the requests."""
    clock.now = MAY - timedelta(days=1)
    await house.found("cafe")
    sides, chance, book = ["bank", "broker", "cafe", "shop"], random.Random(5), ByHand()
    terms = {}
    for issuer in sides:
        if issuer != "bank":
            await house.program(f"{issuer}-points", issuer)
        for partner in sides:
            if partner != issuer:
                price = Fraction(chance.randint(1, 50), chance.choice([3, 7, 100]))
                fee = chance.choice([0, 35, 150])
                agreement = await house.agreement(
                    issuer, partner, price=price.as_integer_ratio(), fee=fee, cut_off="22:30", zone="Europe/Prague"
                )
                terms[issuer, partner] = agreement, price, Fraction(fee, 10_000)
    settler, gets, expected_items = Settler(house.commands), dict.fromkeys(sides, 0), 0
    for day in range(31):
        items = []
        for _ in range(chance.randint(0, 12)):
            (payer, payee), (agreement, agreed, share) = chance.choice(sorted(terms.items()))
            points = chance.choice([1, -1, 1, 1]) * chance.randint(1, 5_000)
            at = MAY + timedelta(days=day, minutes=chance.randint(0, 1_200))
            items.append((agreement, payer, payee, f"{payer}-points", points, at))
            book.item(payer, payee, points, agreed, share)
        await house.items(*sorted(items, key=lambda item: item[5]))
        expected_items += len(items)
        clock.now = MAY + timedelta(days=day, hours=20, minutes=29)  # 22:29 summer time
        assert await settler.step() == []
        clock.now += timedelta(minutes=1)
        closed = await settler.step()
        assert len(closed) == bool(items)
        by_hand = book.settle()
        for batch_id in closed:
            await check_and_settle(house, f"institutions/-/settlements/{batch_id}", (MAY + timedelta(days=day)).date(), by_hand)
        for side, amount in by_hand.items():
            gets[side] += amount
    listed = (await house.settlements().ListSettlements(house.listing("-", page_size=200))).settlements
    assert {s.state for s in listed} == {pb.SETTLEMENT_STATE_OPEN, pb.SETTLEMENT_STATE_SETTLED}
    items_count = 0
    for settlement in listed:
        found = await house.settlements().GetSettlement(pb.GetSettlementRequest(name=settlement.name))
        items_count += found.items_count
        for line in found.lines:
            assert line.items_count > 0
    assert items_count == expected_items  # every item in exactly one batch
    assert sum(gets.values()) == 0


async def check_and_settle(house, name: str, day: date, by_hand: dict[str, int]) -> None:
    """The settlement of a day is what was added up by hand; then it is confirmed and paid."""
    found = await house.settlements().GetSettlement(pb.GetSettlementRequest(name=name))
    assert date.fromisoformat(found.business_date) == day
    positions = {p.institution.split("/")[1]: p.amount.minor_units for p in found.positions}
    assert positions == by_hand
    assert sum(positions.values()) == 0
    for side, amount in by_hand.items():
        await check_file(house, name, side, amount)
        await house.confirm(side, name.replace("/-/", f"/{side}/"))
    for payment in found.instructions:
        payer, payee = (institution.split("/")[1] for institution in (payment.payer, payment.payee))
        positions[payer] += payment.amount.minor_units
        positions[payee] -= payment.amount.minor_units
        await house.acknowledge(payee, name.replace("/-/", f"/{payee}/"), payer)
    assert not any(positions.values())


async def check_file(house, name: str, side: str, position: int) -> None:
    """Adds up a file by its rows alone."""
    text = await house.download(side, name)
    rows = rows_of(text)
    assert all(side in (row["payer"], row["payee"]) for row in rows if row["record"] != "CONTROL")

    def total(*records: str) -> Fraction:
        chosen = [row for row in rows if row["record"] in records]
        amounts = (Fraction(int(row["amount_numerator"]), int(row["amount_denominator"])) for row in chosen)
        return sum(
            (amount if row["payer"] == side else -amount for row, amount in zip(chosen, amounts, strict=True)), Fraction(0)
        )

    assert total("ITEM") == total("PRINCIPAL")
    assert -total("PRINCIPAL", "FEE", "RESIDUE") == position
    [stated] = [row for row in rows if row["record"] == "POSITION"]
    assert int(stated["minor_units"]) == position
    [control] = [row for row in rows if row["record"] == "CONTROL"]
    items = [row for row in rows if row["record"] == "ITEM"]
    assert (int(control["items_count"]), int(control["points"])) == (len(items), sum(int(row["points"]) for row in items))
    file = await house.settlements(side).GetSettlementFile(
        pb.GetSettlementFileRequest(name=name.replace("/-/", f"/{side}/") + "/file")
    )
    assert file.sha256 == hashlib.sha256(text.encode()).digest()
    assert (file.size_bytes, file.rows_count, file.items_count) == (len(text), text.count("\r\n"), len(items))
    assert bytes.fromhex(control["ledger_hash"]) == file.ledger_hash


async def test_a_file_is_the_same_bytes_however_it_is_read_and_whenever_it_is_made(house):
    first = await house.agreement("bank", "shop", price=(1, 3))
    second = await house.agreement("shop", "bank", price=(2, 7), fee=10)
    await house.program("shop-points", "shop")
    items = [
        (first, "bank", "shop", "bank-points", n % 50 - 20 or 1) if n % 3 else (second, "shop", "bank", "shop-points", n + 1)
        for n in range(120)
    ]
    await house.items(*items)
    name = await house.closed()
    before = await house.download("shop", name)
    await house.items(*items[:9])  # what comes later is not in it
    await house.closed()
    for page_size in (0, 1, 7, 60, 120):
        assert await house.download("shop", name, page_size) == before
    batch_id = name.rpartition("/")[2]
    async with house.database.connection() as connection:
        batch = await store.get(connection, batch_id)
        assert batch is not None
        made = await settlement_files.make(connection, batch, "shop")
    assert made.sha256 == hashlib.sha256(before.encode()).digest()
    shop = name.replace("/-/", "/shop/")
    assert await refused(house.confirm("shop", shop, file_sha256=bytes(32))) == "FILE_MISMATCH"
    await house.confirm("shop", shop, file_sha256=made.sha256)
    listed: list[pb.SettlementItem] = []
    token = ""
    while token or not listed:
        page = await house.settlements("shop").ListSettlementItems(
            pb.ListSettlementItemsRequest(parent=shop, page_size=11, page_token=token)
        )
        listed += page.settlement_items
        token = page.next_page_token
    assert [item.sequence for item in listed] == [int(row["sequence"]) for row in rows_of(before) if row["record"] == "ITEM"]


async def test_closing_is_one_transaction(house, monkeypatch):
    """Killed at any step, nothing of it is there; the next one closes all."""
    agreement = await house.agreement("bank", "shop")
    await house.items((agreement, "bank", "shop", "bank-points", 10))
    await Settler(house.commands).step()
    [opened] = (await house.settlements().ListSettlements(house.listing("-"))).settlements

    async def kill(unit, *_arguments, **_options):
        await unit.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with monkeypatch.context() as patched:
        patched.setattr(settling, "clear", kill)
        assert await refused(house.close(opened.name)) != ""
    async with house.database.connection() as connection:
        for table in ("settlement_cut_offs", "settlement_lines", "settlement_pairs", "settlement_instructions"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    closed = await house.close(opened.name)
    assert (closed.state, closed.items_count) == (pb.SETTLEMENT_STATE_CLOSED, 1)


async def test_agreements_are_cut_off_each_at_its_own_time(house, clock):
    clock.now = MAY - timedelta(days=1)
    early = await house.agreement("bank", "shop", cut_off="12:00", zone="UTC")
    late = await house.agreement("bank", "broker", cut_off="00:00", zone="Asia/Shanghai")  # 16:00 UTC
    morning = MAY.replace(hour=9)
    await house.items((early, "bank", "shop", "bank-points", 1, morning), (late, "bank", "broker", "bank-points", 2, morning))
    clock.now = MAY.replace(hour=11, minute=59)
    assert await Settler(house.commands).step() == []
    clock.now = MAY.replace(hour=15)
    [noon] = await Settler(house.commands).step()
    clock.now = MAY.replace(hour=16)
    [midnight] = await Settler(house.commands).step()
    found = [
        await house.settlements().GetSettlement(pb.GetSettlementRequest(name=f"institutions/-/settlements/{batch_id}"))
        for batch_id in (noon, midnight)
    ]
    assert [(s.points, s.business_date, len(s.pairs)) for s in found] == [(1, "2026-05-01", 1), (2, "2026-05-01", 1)]


async def test_what_was_fixed_cannot_be_changed(house):
    agreement = await house.agreement("bank", "shop")
    await house.items((agreement, "bank", "shop", "bank-points", 10))
    await house.closed()
    for statement in (
        "UPDATE settlement_lines SET points = 9",
        "DELETE FROM settlement_cut_offs",
        "UPDATE settlement_pairs SET amount_minor_units = 9",
        "UPDATE settlement_batches SET state = 'OPEN', cut_off_sequence = NULL, cut_off_hash = NULL, close_time = NULL"
        " WHERE state = 'CLOSED'",
        "DELETE FROM settlement_instructions",
    ):
        async with house.database.connection() as connection:
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(statement)
