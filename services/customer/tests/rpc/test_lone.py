"""What is prepared for a record that stays alone is what the intake would have written."""

import random
from collections import defaultdict
from typing import Any

from google.protobuf.message import Message

from chassis import clock
from concord.customer.v1 import customer_events_pb2, intake_service_pb2
from customer import ingest
from customer.lone import LoneMaker, Moment, assess, bare, shape_of
from customer.prepare import Prepared, prepare_with_party, seal
from customer.store import institutions
from customer.survivorship_standard import first_policy
from customer.training import population

EVENTS = {
    "concord.customer.v1.customer.updated": customer_events_pb2.CustomerChanged,
    "concord.customer.v1.quality.changed": customer_events_pb2.QualityChanged,
    "concord.customer.v1.customer.records_moved": customer_events_pb2.RecordsMoved,
}


class Undone(Exception):
    """Takes everything back."""


def source_records() -> list[intake_service_pb2.SourceRecord]:
    """People, second records of some, the same key twice, and wrong values; in an order that makes them meet."""
    made = population.make(220, 90, 11)
    people = [*made.people, *(person for _, person in made.copies)]
    chance = random.Random(5)
    chance.shuffle(people)
    records = []
    for number, person in enumerate(people):
        party = population.party(person)
        if number % 17 == 0:
            party.birth_date = "1990-02-31"
        if number % 19 == 0:
            party.employment.employer_name = "Harbour School"
        if number % 23 == 0:
            party.time_zone, party.language_code, party.occupation = "Asia/Shanghai", "zh-CN", "teacher"
        if number % 29 == 0:
            party.roles.add(kind=2)
        record = intake_service_pb2.SourceRecord(source_record_key=f"k-{number - (number % 31 == 0)}", party=party)
        record.observe_time.FromSeconds(1_700_000_000 + number // 40)
        records.append(record)
    return records


async def written(application: Any, core: Any, items: list[Prepared], keys: dict[bytes, str]) -> dict[str, Any]:
    """Everything that a batch writes, with ids replaced by the keys of the records they stand for; undone afterwards."""
    found: dict[str, Any] = {}
    try:
        async with application.commands.unit() as unit:
            taken = await ingest.take(unit, core, items)
            found["taken"] = [(one.outcome, one.reason) for one in taken]
            fetch = unit.connection.fetch
            records = await fetch("SELECT * FROM records")
            key_of = {row["record_id"]: keys[row["source_key"]] for row in records}
            groups = defaultdict(list)
            for row in records:
                groups[row["customer_id"]].append(key_of[row["record_id"]])
            names = {str(customer): "+".join(sorted(group)) for customer, group in groups.items()}
            names |= {str(record): key for record, key in key_of.items()}
            found["whose"] = [names[str(one.customer_id)] for one in taken]
            skipped = {"party", "payload", "create_time", "update_time", "recorded_at", "row_id", "event_id", "occurred_at"}

            def named(row: Any) -> tuple[Any, ...]:
                return tuple(
                    (column, names.get(str(value), value))
                    for column, value in row.items()
                    if column not in skipped and value != []
                )

            for table in (
                "records",
                "source_records",
                "record_sightings",
                "links",
                "blocking_keys",
                "customers",
                "customer_qualities",
            ):
                found[table] = sorted(repr(named(row)) for row in await fetch(f"SELECT * FROM {table}"))
            items_of = (
                "SELECT kind, codes, review_item_records.* FROM review_items JOIN review_item_records USING (review_item_id)"
            )
            found["reviews"] = sorted(
                (row["kind"], tuple(row["codes"]), names[str(row["record_id"])], row["side"]) for row in await fetch(items_of)
            )
            published = [*await fetch("SELECT * FROM outbox WHERE type NOT LIKE '%institution%'")]
            events = [(row["type"], row["payload"]) for row in published]
            events += [(event.type, event.message.SerializeToString()) for event in unit.events]
            found["events"] = sorted(repr((kind, normal(EVENTS[kind].FromString(payload), names))) for kind, payload in events)  # type: ignore[attr-defined]
            raise Undone
    except Undone:
        return found


def normal(message: Message, names: dict[str, str]) -> str:
    """An event with ids replaced."""
    text = str(message)
    for identity, name in names.items():
        text = text.replace(identity, name)
    return "\n".join(sorted(line for line in text.splitlines() if "create_time_seconds" not in line))


async def test_a_batch_writes_the_same_with_and_without_what_was_prepared(master: Any) -> None:
    application = master.running.application
    core = next(servicer for _, servicer in application.servicers if hasattr(servicer, "_core"))._core
    async with application.database.connection() as connection:
        [source] = (await institutions.find_source_systems(connection, [("bank", "core")])).values()
    records, now = source_records(), clock.now()
    keys = {core.index.source_key(source.name, record.source_record_key): record.source_record_key for record in records}
    plain = []  # with the same ids: of equals, the lower one is believed
    moment = Moment(now, application.database.epoch, first_policy(), core.models.current().version)
    maker, rich = LoneMaker(core.index), []
    for record, (record_id, key) in zip(records, await core.vault.new("bank", len(records)), strict=True):
        item, party = prepare_with_party(now, core.index, source, record)
        item = item._replace(record_id=record_id, sealed=seal(item, key, record_id, 1))
        plain.append(item)
        lone = maker.make(item, party, moment)
        rich.append(bare(item, lone) if lone else item)
    assert len([item for item in rich if item.lone]) > len(rich) / 2
    one, other = await written(application, core, plain, keys), await written(application, core, rich, keys)
    for part, expected in one.items():
        assert other[part] == expected, part
    assert len(set(one["whose"])) < len(records) - 50, "some belong together"
    assert one["reviews"]


async def test_what_is_remembered_of_a_shape_holds_for_every_party_of_it(master: Any) -> None:
    application = master.running.application
    core = next(servicer for _, servicer in application.servicers if hasattr(servicer, "_core"))._core
    async with application.database.connection() as connection:
        [source] = (await institutions.find_source_systems(connection, [("bank", "core")])).values()
    now = clock.now()
    moment, seen = Moment(now, 1, first_policy(), "m"), {}  # type: ignore[var-annotated]
    for record in source_records():
        item, party = prepare_with_party(now, core.index, source, record)
        shape = shape_of(party, now.date())
        if shape is None:
            continue
        found = assess(core.index, item, party, moment)
        assert seen.setdefault((*shape, item.observe_time), found) == found
    assert len(seen) > 10
