"""The people of the demonstration are always the same ones, and their documents are valid."""

from concord_local import population


def test_the_same_people_every_time() -> None:
    first, again = population.people(50), population.people(50)
    assert first == again
    assert [population.record(person, person.institutions[0]) for person in first] == [
        population.record(person, person.institutions[0]) for person in again
    ]


def test_documents_are_different_and_pass_their_check_digit() -> None:
    documents = [person.party["identifiers"][0]["value"] for person in population.people(2_000)]
    assert len(set(documents)) == 2_000
    # GB 11643: the weighted sum with the check digit (X is 10) is 1 modulo 11.
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2, 1)
    for number in (document for document in documents if len(document) == 18):
        digits = [10 if letter == "X" else int(letter) for letter in number]
        assert sum(a * b for a, b in zip(digits, weights, strict=True)) % 11 == 1


def test_activity_keys_are_unique_within_a_source() -> None:
    keys = [
        (item["sourceSystem"], item["sourceActivityKey"])
        for person in population.people(200)
        for institution in person.institutions
        for item in population.activities(person, institution)
    ]
    assert len(keys) == len(set(keys)) > 2_000
