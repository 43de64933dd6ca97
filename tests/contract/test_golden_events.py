"""The bytes of every released event version are kept, and today's code reads them as they were meant.

`python tests/contract/test_golden_events.py` writes the bytes of events that have none yet. Files that are there are never
written again: after a change of an event message raise VERSION, and the old files must still be read.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from concord.campaign.v1 import campaign_events_pb2
from concord.common.v1 import event_pb2
from concord.contact.v1 import contact_events_pb2
from concord.customer.v1 import customer_events_pb2
from concord.loyalty.v1 import loyalty_events_pb2
from concord.rating.v1 import rating_events_pb2

VERSION = 1
GOLDEN = Path(__file__).parent / "golden"
FILES = (campaign_events_pb2, contact_events_pb2, customer_events_pb2, event_pb2, loyalty_events_pb2, rating_events_pb2)
# Parts of events, which never travel alone.
PARTS = {"AttributeQuality", "Holder", "DegreeValue", "RecordLink", "StateVersion"}


def events() -> Iterator[Descriptor]:
    """Every message that is published."""
    for file in FILES:
        for descriptor in file.DESCRIPTOR.message_types_by_name.values():
            if descriptor.name not in PARTS:
                yield descriptor


def filled(descriptor: Descriptor, depth: int = 0) -> Message:
    """A message with a value in every field, always the same ones; of a oneof, the first field."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        chosen = field.containing_oneof
        if chosen is not None and chosen.fields[0] is not field:
            continue
        values = [_value(field, depth, number) for number in (range(2) if field.is_repeated else range(1))]
        if field.message_type is not None:
            for value in values:
                (getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)).CopyFrom(value)
        elif field.is_repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def _value(field: FieldDescriptor, depth: int, number: int) -> object:
    if field.message_type is not None:
        return filled(field.message_type, depth + 1)
    if field.enum_type is not None:
        return field.enum_type.values[min(1 + number, len(field.enum_type.values) - 1)].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"{field.name}-{number}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    return field.number * 100 + number


@pytest.mark.parametrize("descriptor", list(events()), ids=lambda descriptor: descriptor.full_name)
def test_every_event_has_its_bytes_kept(descriptor: Descriptor) -> None:
    assert (GOLDEN / f"{descriptor.full_name}.{VERSION}.binpb").exists(), (
        f"run `python {Path(__file__).name}` and commit the file"
    )


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.binpb")), ids=lambda path: path.stem)
def test_released_bytes_are_read_as_they_were_meant(path: Path) -> None:
    name = path.stem.rsplit(".", 1)[0]
    descriptor = next((event for event in events() if event.full_name == name), None)
    assert descriptor is not None, f"{name} was released and must stay readable"
    message = message_factory.GetMessageClass(descriptor)()
    message.ParseFromString(path.read_bytes())
    assert json_format.MessageToDict(message) == json.loads(path.with_suffix(".json").read_text())


def main() -> None:
    """Writes what is missing."""
    GOLDEN.mkdir(exist_ok=True)
    for descriptor in events():
        path = GOLDEN / f"{descriptor.full_name}.{VERSION}.binpb"
        if not path.exists():
            message = filled(descriptor)
            path.write_bytes(message.SerializeToString(deterministic=True))
            path.with_suffix(".json").write_text(json.dumps(json_format.MessageToDict(message), indent=1) + "\n")
            print(f"written: {path.name}")


if __name__ == "__main__":
    main()
