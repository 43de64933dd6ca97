"""The tables of campaign: its own truth, and projections folded from the events of others."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chassis import customer_states, record_links
from chassis.tables import INSTANT, add_tables

metadata = MetaData()
add_tables(metadata)
links = record_links.table(metadata)
Index("record_links_institution", links.c.institution_id, links.c.customer_id)
states = customer_states.table(metadata)


def _version() -> tuple[Column[int], Column[int]]:
    return Column("epoch", BigInteger, nullable=False), Column("version", BigInteger, nullable=False)


# ---- the truth

offers = Table(
    "offers",
    metadata,
    Column("institution_id", Text, primary_key=True),
    Column("offer_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("create_time", INSTANT, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("campaign_id", Uuid, primary_key=True, comment="UUIDv7: newer ones are greater"),
    Column("institution_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("channel", Text, nullable=False, comment="INBOX"),
    Column("audience_rule", JSONB, nullable=False, comment="the truth; groups of conditions"),
    Column("audience_expression", Text, nullable=False, comment="CEL made from audience_rule"),
    Column("state", Text, nullable=False, comment="DRAFT, RUNNING, FINISHED"),
    Column("version", BigInteger, nullable=False),
    Column("create_time", INSTANT, nullable=False),
    Column("launch_time", INSTANT),
    ForeignKeyConstraint(["institution_id", "offer_id"], ["offers.institution_id", "offers.offer_id"]),
)
Index("campaigns_institution", campaigns.c.institution_id, campaigns.c.campaign_id)
Index("campaigns_running", campaigns.c.campaign_id, postgresql_where=text("state = 'RUNNING'"))

waves = Table(
    "waves",
    metadata,
    Column("campaign_id", Uuid, primary_key=True),
    Column("wave", Integer, primary_key=True),
    Column("state", Text, nullable=False, comment="PLANNING, PLANNED"),
    Column("cursor_customer_id", Uuid, nullable=False, comment="the last customer examined"),
    Column("examined_count", BigInteger, nullable=False),
    Column("rule_failures_count", BigInteger, nullable=False, comment="profiles for which the rule failed: no members"),
    Column("finish_time", INSTANT),
    Column("fence", BigInteger, nullable=False, comment="rises with every claim by a planner"),
    Column("claimable_at", INSTANT, nullable=False, comment="end of the present claim, or of the pause after a failure"),
    Column("failures_count", Integer, nullable=False, comment="claims that failed since the last success"),
    Column("settled_touch_id", Uuid, nullable=False, comment="every touch before it has arrived or failed"),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.campaign_id"]),
)
Index("waves_planning", waves.c.claimable_at, postgresql_where=text("state = 'PLANNING'"))

touches = Table(
    "touches",
    metadata,
    Column("campaign_id", Uuid, primary_key=True),
    Column("wave", Integer, primary_key=True),
    Column("touch_id", Uuid, primary_key=True, comment="made of campaign, wave and customer"),
    Column("record_id", Uuid, comment="the institution's record that it hangs on; null when the person was erased"),
    Column("refused_reason", Text, comment="null: a slot was reserved"),
    Column("next_free_time", INSTANT),
    Column("last_contact_state", Text, comment="of an erased person: contact has forgotten it and will not say it again"),
    Column("create_time", INSTANT, nullable=False),
    ForeignKeyConstraint(["campaign_id", "wave"], ["waves.campaign_id", "waves.wave"]),
)
Index("touches_record", touches.c.record_id)

# ---- projections; their owners can fill them again

profiles = Table(
    "profiles",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("birth_year", Integer),
    Column("sex", Text),
    Column("country", Text),
    Column("administrative_area", Text),
    Column("language", Text),
    *_version(),
)

profile_ratings = Table(
    "profile_ratings",
    metadata,
    Column("customer_id", Uuid, primary_key=True),
    Column("scope", Text, primary_key=True, comment="alliance, or an institution"),
    Column("customer_level", Text),
    Column("lifecycle_stage", Text),
    Column("loyalty", Double),
    Column("satisfaction", Double),
    Column("contribution", Double),
    Column("credit", Double),
    Column("completeness", Double),
    Column("credibility", Double),
    *_version(),
)

loyalty_accounts = Table(
    "loyalty_accounts",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False, comment="nobody's (zero) when the person was erased"),
    *_version(),
)
Index("loyalty_accounts_customer", loyalty_accounts.c.customer_id)

profile_points = Table(
    "profile_points",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("program_id", Text, primary_key=True),
    Column("balance_points", BigInteger, nullable=False),
    *_version(),
)

permissions = Table(
    "permissions",
    metadata,
    Column("record_id", Uuid, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("granted", Boolean, nullable=False),
    Column("covered_record_ids", Text, nullable=False, comment="of all records that it was said for, commas between them"),
    Column("state_time_microseconds", BigInteger, nullable=False),
    Column("statement_id", Text, nullable=False),
    *_version(),
)

contact_states = Table(
    "contact_states",
    metadata,
    Column("touch_id", Uuid, primary_key=True, comment="may come before the touch itself is committed"),
    Column("state", Text, nullable=False, comment="DELIVERED, READ, FAILED…"),
    *_version(),
)

PROJECTIONS = (links, states, profiles, profile_ratings, loyalty_accounts, profile_points, permissions, contact_states)
