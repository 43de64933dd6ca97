"""Keyed hashes: which values meet, and which must not."""

from hypothesis import given
from hypothesis import strategies as st

from customer.domain.blind_index import BlindIndex

INDEX, OTHER = BlindIndex(b"k" * 32), BlindIndex(b"l" * 32)


@given(st.text(max_size=40), st.text(max_size=40))
def test_equal_values_meet_in_one_place_and_nowhere_else(kind, value):
    number = INDEX.lookup("bank", kind, value)
    assert -(2**63) <= number < 2**63
    assert INDEX.lookups("bank", [(kind, value)]) == {number}
    assert INDEX.blocking_keys([(kind, value)]) == [INDEX.blocking(kind, value)]
    different = {
        number, INDEX.lookup("insurer", kind, value), INDEX.blocking(kind, value), OTHER.lookup("bank", kind, value),
        OTHER.blocking(kind, value), INDEX.lookup("bank", kind, value + "x"), INDEX.lookup("bank", kind + "x", value),
    }  # fmt: skip
    assert len(different) == 7


def test_keys_are_the_same_for_ever():
    assert INDEX.blocking("phone", "+420601000001") == -2498509131555859136
    assert INDEX.lookup("bank", "phone", "+420601000001") == -8337526560743545394
