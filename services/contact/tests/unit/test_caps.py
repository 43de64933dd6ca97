"""Rolling caps: never more than allowed in any window, and next_free is exact."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contact.domain.caps import Cap, Slot, binds, decide, next_free

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
WEEK = timedelta(days=7)

ages = st.lists(st.timedeltas(timedelta(0), timedelta(days=30)), max_size=12)
caps = st.builds(
    Cap,
    contacts_max=st.integers(1, 5),
    window=st.integers(1, 500).map(lambda hours: timedelta(hours=hours)),
    channel=st.integers(0, 2),
    purpose=st.integers(0, 2),
    institution=st.sampled_from([None, "north", "south"]),
)
slots = st.builds(
    Slot,
    institution=st.sampled_from(["north", "south"]),
    channel=st.integers(1, 2),
    purpose=st.integers(1, 2),
    time=st.timedeltas(timedelta(0), timedelta(days=30)).map(lambda age: NOW - age),
)


def count_in_window(times, cap, at):
    return sum(at - cap.window < time <= at for time in times)


def test_the_nth_newest_decides():
    cap = Cap(2, WEEK)
    times = [NOW - timedelta(days=6), NOW - timedelta(days=5), NOW - timedelta(days=1)]
    assert next_free(cap, times, NOW) == NOW + timedelta(days=2)  # until the one of five days ago is a week old


def test_a_contact_exactly_as_old_as_the_window_counts_no_more():
    cap = Cap(1, WEEK)
    assert next_free(cap, [NOW - WEEK], NOW) == NOW
    assert next_free(cap, [NOW - WEEK + TICK], NOW) == NOW + TICK


@given(ages, st.integers(1, 5), st.integers(1, 1000))
def test_next_free_is_the_first_instant_with_a_free_slot(ages, contacts_max, hours):
    cap = Cap(contacts_max, timedelta(hours=hours))
    times = [NOW - age for age in ages]
    free = next_free(cap, times, NOW)
    assert free >= NOW
    assert count_in_window(times, cap, free) < contacts_max
    if free > NOW:
        assert count_in_window(times, cap, free - TICK) >= contacts_max
        assert count_in_window(times, cap, NOW) >= contacts_max  # it was full all the time until then


@given(st.lists(caps, max_size=4), st.lists(slots, max_size=15), slots)
def test_a_decision_holds_for_every_cap_that_binds(caps, history, wanted):
    wanted = Slot(wanted.institution, wanted.channel, wanted.purpose, NOW)
    free = decide(caps, history, wanted)
    binding = [cap for cap in caps if binds(cap, wanted)]

    def fits(instant):
        used = [count_in_window([slot.time for slot in history if binds(cap, slot)], cap, instant) for cap in binding]
        return all(count < cap.contacts_max for count, cap in zip(used, binding, strict=True))

    assert fits(free)
    assert free == NOW or not fits(free - TICK)


@given(st.lists(caps, max_size=3), st.lists(st.timedeltas(timedelta(0), timedelta(days=5)), min_size=1, max_size=30))
def test_contacts_made_when_allowed_never_exceed_a_cap(caps, gaps):
    """Ask again and again; whatever the times, no window of any cap ever holds more than it may."""
    made: list[Slot] = []
    instant = NOW
    for index, gap in enumerate(gaps):
        instant += gap
        wanted = Slot("north" if index % 3 else "south", 1 + index % 2, 1 + index % 2, instant)
        if decide(caps, made, wanted) == instant:
            made.append(wanted)
    for cap in caps:
        times = [slot.time for slot in made if binds(cap, slot)]
        assert all(count_in_window(times, cap, time) <= cap.contacts_max for time in times)


def test_an_institutions_cap_counts_its_own_contacts_only():
    mine, other = Slot("north", 1, 1, NOW - timedelta(hours=1)), Slot("south", 1, 1, NOW - timedelta(hours=1))
    cap = Cap(1, WEEK, institution="north")
    wanted = Slot("north", 1, 1, NOW)
    assert decide([cap], [other], wanted) == NOW
    assert decide([cap], [mine], wanted) == NOW - timedelta(hours=1) + WEEK
    assert decide([cap], [mine], Slot("south", 1, 1, NOW)) == NOW
    assert decide([Cap(1, WEEK)], [other], wanted) > NOW  # the alliance's counts everybody's
