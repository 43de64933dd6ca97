"""`python -m chassis.testing.new_revision <service> "<what it does>"`: writes the next migration of a service.

It runs the migrations that exist on a throw-away PostgreSQL and compares the result with the service's tables.
Read what it wrote: a rename looks like a drop to it.
"""

import argparse
import importlib
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from chassis import migrations
from chassis.testing.fixtures import in_thread
from concord_local import postgres

TEMPLATE = '''"""{message}."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "{revision}"
down_revision = {down_revision}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """{message}."""
    {code}
'''


def main() -> None:
    """Writes the file and prints its path."""
    parser = argparse.ArgumentParser(description="Writes the next migration of a service.")
    parser.add_argument("service")
    parser.add_argument("message", help="what it does, such as 'create accounts'")
    options = parser.parse_args()
    metadata = importlib.import_module(f"{options.service}.store.tables").metadata
    with postgres.temporary() as server:
        path = write(f"{options.service}:migrations", server.url(), metadata, options.message)
    sys.stdout.write(f"{path}\n" if path else "nothing has changed\n")


def write(script_location: str, url: str, metadata: Any, message: str) -> Path | None:
    """Writes the migration that is missing; None when there is none. The database must be empty."""
    config = migrations.config(script_location, url)
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    if head is not None:
        command.upgrade(config, "head")
    code: list[str] = []

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        operations = produce_migrations(context, metadata).upgrade_ops
        if operations is not None and not operations.is_empty():
            code.append(render_python_code(operations, migration_context=context))

    in_thread(migrations.on_engine(url, compare))
    if not code:
        return None
    revision = datetime.now(UTC).strftime("%Y%m%d%H%M")
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
    versions = Path(scripts.versions)
    versions.mkdir(exist_ok=True)
    path = versions / f"{datetime.now(UTC):%Y-%m-%d-%H%M}_{slug}.py"
    text = TEMPLATE.format(
        message=message[:1].upper() + message[1:],
        revision=revision,
        down_revision=f'"{head}"' if head else None,
        code="\n".join(line for line in code[0].splitlines() if not line.strip().startswith("# ###")).strip(),
    )
    path.write_text(text, encoding="utf-8")
    for arguments in (["check", "-q", "--fix"], ["format", "-q"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, str(path)], check=False)
    return path


if __name__ == "__main__":
    main()
