"""Between the contracts' messages and the domain: parties in, golden customers out. No I/O."""

from datetime import datetime
from math import floor

from google.protobuf.timestamp_pb2 import Timestamp

from customer.standards import canonical as canonical
from customer.standards import standardised as standardised


def timestamp(instant: datetime) -> Timestamp:
    """An instant as protobuf has it."""
    return Timestamp(seconds=floor(instant.timestamp()), nanos=instant.microsecond * 1000)
