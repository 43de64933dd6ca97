"""Folds: newer wins, each state once, in any order."""

import uuid

from campaign.store import audience
from campaign.store.campaigns import NIL_ID


async def profiles(workshop, institution="northbank", after=NIL_ID, limit=1000):
    async with workshop.database.connection() as connection:
        return await audience.page(connection, institution, "INBOX", after, limit)


async def test_a_profile_is_all_that_others_said(workshop, others):
    await workshop.fold(
        others.customer(
            "ann",
            ("northbank", "shopco"),
            birth_year=1984,
            sex=1,
            country_code="CZ",
            administrative_area="Praha",
            language_code="cs",
        ),
        others.rating("ann", "alliance", level=3, stage=2, loyalty=70.5, credit=0.0, satisfaction=None),
        others.rating("ann", "northbank", level=1, contribution=12.0),
        others.rating("ann", "shopco", level=4),
        others.account("a1", "ann"),
        others.account("a2", "ann"),
        others.points("a1", "miles", 100),
        others.points("a2", "miles", 20),
        others.points("a1", "shop", -5),
        others.permission("ann"),
    )
    (ann,) = await profiles(workshop)
    assert str(ann.customer_id) == others.id("ann")
    assert ann.texts == {
        "sex": "SEX_FEMALE",
        "country": "CZ",
        "administrative_area": "Praha",
        "language": "cs",
        "customer_level:alliance": "CUSTOMER_LEVEL_GOLD",
        "customer_level:northbank": "CUSTOMER_LEVEL_BASIC",
        "lifecycle_stage:alliance": "LIFECYCLE_STAGE_GROWTH",
    }
    assert ann.numbers == {
        "birth_year": 1984.0,
        "loyalty:alliance": 70.5,
        "credit:alliance": 0.0,
        "contribution:northbank": 12.0,
        "points_balance:miles": 120.0,
        "points_balance:shop": -5.0,
    }
    assert ann.permitted
    (seen_by_shop,) = await profiles(workshop, "shopco")
    assert seen_by_shop.texts["customer_level:shopco"] == "CUSTOMER_LEVEL_PLATINUM"
    assert "customer_level:northbank" not in seen_by_shop.texts
    assert not seen_by_shop.permitted


async def test_newer_wins_within_a_batch_and_between_batches(workshop, others):
    states = [others.customer("ann", version=version, birth_year=1900 + version) for version in (2, 5, 3)]
    await workshop.fold(*states)
    await workshop.fold(others.customer("ann", version=4, birth_year=1904), states[1])
    (ann,) = await profiles(workshop)
    assert ann.numbers["birth_year"] == 1905.0
    await workshop.fold(others.points("a1", "miles", 90, version=9), others.account("a1", "ann"))
    await workshop.fold(others.points("a1", "miles", 10, version=8), others.permission("ann", True, version=2))
    await workshop.fold(others.permission("ann", False, version=3), others.permission("ann", True, version=1))
    (ann,) = await profiles(workshop)
    assert ann.numbers["points_balance:miles"] == 90.0
    assert not ann.permitted


async def test_a_restored_owner_wins_by_its_epoch(workshop, others):
    await workshop.fold(others.customer("ann", version=50, birth_year=1950))
    restored = others.customer("ann", version=7, birth_year=1907)
    restored.message.state_version.epoch = 2
    await workshop.fold(restored)
    await workshop.fold(others.customer("ann", version=51, birth_year=1951))
    (ann,) = await profiles(workshop)
    assert ann.numbers["birth_year"] == 1907.0


async def test_a_state_that_is_not_known_any_more_is_forgotten(workshop, others):
    await workshop.fold(others.customer("ann", birth_year=1984, sex=2), others.rating("ann", level=2, credit=5.0))
    await workshop.fold(others.customer("ann"), others.rating("ann", level=0, credit=None))
    (ann,) = await profiles(workshop)
    assert ann.numbers == {}
    assert ann.texts == {}


async def test_a_code_newer_than_this_program_is_not_known(workshop, others):
    await workshop.fold(others.customer("ann", sex=99), others.rating("ann", level=77))
    (ann,) = await profiles(workshop)
    assert ann.texts == {}


async def test_moved_records_leave_the_audience_and_come_back(workshop, others):
    await workshop.fold(others.customer("ann"), others.customer("bob"))
    assert len(await profiles(workshop)) == 2
    await workshop.fold(others.customer("ann", institutions=(), merged_into_customer_id=others.id("bob")))
    moved = others.customer("bob")
    moved.message.record_links.append(others.link("ann at northbank", "bob"))
    await workshop.fold(moved)
    assert [str(profile.customer_id) for profile in await profiles(workshop)] == [others.id("bob")]


async def test_an_account_that_moves_takes_its_points_along(workshop, others):
    await workshop.fold(
        others.customer("ann"), others.customer("bob"), others.account("a1", "ann"), others.points("a1", "miles", 7)
    )
    await workshop.fold(others.account("a1", "bob"))
    points = {str(profile.customer_id): profile.numbers.get("points_balance:miles") for profile in await profiles(workshop)}
    assert points == {others.id("ann"): None, others.id("bob"): 7.0}


async def test_pages_cover_each_linked_customer_once(workshop, others):
    names = [f"customer {i}" for i in range(23)]
    await workshop.fold(*(others.customer(name) for name in names), others.customer("stranger", ("otherbank",)))
    second_record = others.customer(names[0])
    second_record.message.record_links.append(others.link("a second record", names[0]))
    await workshop.fold(second_record)
    seen, after = [], NIL_ID
    while page := await profiles(workshop, after=after, limit=5):
        seen += [profile.customer_id for profile in page]
        after = page[-1].customer_id
    assert seen == sorted(uuid.UUID(others.id(name)) for name in names)
