"""What follows from the decisions of a match model: where records go, which customers become one, what stewards are asked."""

import itertools
from uuid import UUID

import pytest

from chassis.clock import now
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.party_pb2 import Party
from customer.candidates import Holders, evidence
from customer.changes import Changes
from customer.domain.blocking import blocking_keys
from customer.domain.golden import Ranks
from customer.domain.match_model import default_model
from customer.domain.vocabulary import LinkOrigin, ResolutionReason
from customer.resolving import Resolver
from customer.standards import canonical, standardised
from customer.store.record_writes import Content
from customer.store.records import Member

SOURCE = "institutions/bank/sourceSystems/core"
_numbers = itertools.count(1)


def party(name="", born="", national_id="", phone="", email="", kind=1):
    stated = Party(party_kind=kind, birth_date=born)
    stated.party_name.full_name = name
    if national_id:
        stated.identifiers.add(scheme=1, country_code="CZ", value=national_id)
    if phone:
        stated.phones.add(number=phone)
    if email:
        stated.emails.add(address=email)
    return standardised(canonical(stated), "CZ")


def keys_of(standard):
    return [hash(key) for key in blocking_keys(evidence(standard, SOURCE))]


class Intake:
    """A batch without a database: records follow one another."""

    def __init__(self, rejected=None):
        self.changes = Changes(UnitOfWork(None, now(), 1), None)  # type: ignore[arg-type]
        self.resolver = Resolver(self.changes, default_model(), Holders(), {}, rejected or {}, 10_000)

    def add(self, record_number=None, **fields):
        standard = party(**fields)
        record_id = UUID(int=record_number or 1000 + next(_numbers))
        member = Member(
            record_id, 1, SOURCE, "bank", record_id.bytes, record_id, 1, LinkOrigin.AUTO, 0, 1, 1, b"", now(), standard, now(),
            now(), Ranks(1, {}), 1,
        )  # fmt: skip
        self.resolver.resolve(member, Content(b"", keys_of(standard), ()))
        return member

    def change(self, member, **fields):
        standard = party(**fields)
        return self.resolver.resolve_again(member, standard, keys_of(standard))


JAN = {"name": "Jan Novák", "born": "1970-12-13"}
JANS_ID, PETRS_ID = {"national_id": "701213/0015"}, {"national_id": "710319/2745"}
PETR = {"name": "Petr Malý", "born": "1971-03-19"} | PETRS_ID


def test_a_known_record_stays_while_nothing_sends_it_away():
    intake = Intake()
    one, two = intake.add(**JAN, **JANS_ID), intake.add(**JAN, **JANS_ID)
    assert one.customer_id == two.customer_id
    assert intake.change(two, **JAN, phone="601123456") == ResolutionReason.SOURCE_KEY
    assert intake.change(two, name="Jan Novotný", born="1970-12-13", phone="601123456") == ResolutionReason.SOURCE_KEY
    assert one.customer_id == two.customer_id


def test_a_known_record_goes_where_its_new_document_is():
    intake = Intake()
    one, two, petr = intake.add(**JAN, **JANS_ID), intake.add(**JAN, **JANS_ID), intake.add(**PETR)
    assert intake.change(two, **PETR) == ResolutionReason.IDENTITY_DOCUMENT
    assert two.customer_id == petr.customer_id != one.customer_id


@pytest.mark.parametrize("fields", [JAN | PETRS_ID, PETR, {"name": "Jan Novák", "kind": 2}])
def test_a_known_record_that_contradicts_its_customer_leaves_it(fields):
    intake = Intake()
    one, two = intake.add(**JAN, **JANS_ID), intake.add(**JAN, **JANS_ID)
    assert intake.change(two, **fields) == ResolutionReason.NEW_CUSTOMER
    assert one.customer_id != two.customer_id


def test_a_record_alone_may_become_anybody():
    intake = Intake()
    one = intake.add(**JAN, **JANS_ID)
    customer_id = one.customer_id
    assert intake.change(one, **PETR) == ResolutionReason.SOURCE_KEY
    assert one.customer_id == customer_id


def test_what_was_decided_by_hand_stays():
    intake = Intake()
    one, two, _ = intake.add(**JAN, **JANS_ID), intake.add(**JAN, **JANS_ID), intake.add(**PETR)
    two.origin = LinkOrigin.MANUAL
    assert intake.change(two, **PETR) == ResolutionReason.SOURCE_KEY
    assert one.customer_id == two.customer_id


def test_a_record_is_never_linked_where_a_steward_said_no():
    intake = Intake(rejected={UUID(int=1): {UUID(int=2)}})
    one = intake.add(record_number=1, **JAN, **JANS_ID)
    petr = intake.add(record_number=2, **PETR)
    assert intake.change(one, **PETR) == ResolutionReason.SOURCE_KEY
    assert one.customer_id != petr.customer_id


BY_ID, BY_PHONE = JAN | JANS_ID, {"name": "Novák Jan", "phone": "601123456", "email": "jan@novakovi.cz"}
BOTH = BY_ID | {"phone": "601123456", "email": "jan@novakovi.cz"}


def test_a_record_that_belongs_to_two_customers_makes_them_one():
    intake = Intake()
    one, two = intake.add(**BY_ID), intake.add(**BY_PHONE)
    assert one.customer_id != two.customer_id
    bridge = intake.add(**BOTH)
    assert one.customer_id == two.customer_id == bridge.customer_id


@pytest.mark.parametrize("by_hand", [True, False])
def test_customers_that_a_steward_made_or_keeps_apart_are_not_joined_but_asked_about(by_hand):
    intake = Intake(rejected={} if by_hand else {UUID(int=1): {UUID(int=2)}, UUID(int=2): {UUID(int=1)}})
    one, two = intake.add(record_number=1, **BY_ID), intake.add(record_number=2, **BY_PHONE)
    if by_hand:
        two.origin = LinkOrigin.MANUAL
    bridge = intake.add(**BOTH)
    assert one.customer_id != two.customer_id
    assert bridge.customer_id in (one.customer_id, two.customer_id)
    [question] = intake.resolver.questions
    assert question.record_ids == (bridge.record_id,)


def test_a_likely_match_is_a_question_and_no_link():
    intake = Intake()
    one, two = intake.add(name="Jan Novák"), intake.add(name="Jan Novák")
    assert one.customer_id != two.customer_id
    assert [(asked.record_ids, asked.rival_record_ids) for asked in intake.resolver.questions] == [
        ((two.record_id,), (one.record_id,))
    ]
