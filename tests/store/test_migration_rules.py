"""No revision does what the release before could not live with."""

from pathlib import Path

import pytest

from tests.store.migration_rules import destructive_operations

VERSIONS = sorted((Path(__file__).parents[2] / "migrations" / "versions").glob("*.py"))


@pytest.mark.parametrize("revision", VERSIONS, ids=lambda path: path.stem)
def test_every_revision_only_expands_or_says_that_it_contracts(revision: Path) -> None:
    assert destructive_operations(revision.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        ('op.drop_column("jobs", "queue")', "drop_column"),
        ('op.drop_table("jobs")', "drop_table"),
        ('op.rename_table("jobs", "tasks")', "rename_table"),
        ('op.alter_column("jobs", "queue", new_column_name="q")', "renames"),
        ('op.alter_column("jobs", "queue", type_=sa.Integer())', "changes the type"),
        ('op.alter_column("jobs", "queue", nullable=False)', "forbids NULL"),
        ('op.alter_column("jobs", "priority", server_default=None)', "takes the default away"),
        ('op.add_column("jobs", sa.Column("a", sa.Text(), nullable=False))', "no default of the server"),
        ('op.execute("ALTER TABLE jobs DROP COLUMN queue")', "DROP"),
        ('op.execute(sa.text("ALTER TABLE jobs RENAME COLUMN a TO b"))', "RENAME"),
        ('op.execute(f"TRUNCATE {TABLE}")', "TRUNCATE"),
        ('op.execute("ALTER TABLE jobs ALTER COLUMN a SET NOT NULL")', "SET NOT NULL"),
        ("helper()", "drop_column"),
    ],
)
def test_what_destroys_is_found(operation: str, found: str) -> None:
    helper = 'def helper():\n    op.drop_column("jobs", "a")\n\n\n'
    [fault] = destructive_operations(f"{helper}def upgrade():\n    {operation}\n")
    assert found in fault
    marked = f'CONTRACTS = "0001"\n\n\n{helper}def upgrade():\n    {operation}\n'
    assert destructive_operations(marked) == []


@pytest.mark.parametrize(
    "operation",
    [
        'op.add_column("jobs", sa.Column("a", sa.Text(), nullable=True))',
        'op.add_column("jobs", sa.Column("a", sa.Text()))',
        'op.add_column("jobs", sa.Column("a", sa.Integer(), nullable=False, server_default="0"))',
        'op.alter_column("jobs", "queue", nullable=True)',
        'op.create_table("new", sa.Column("id", sa.Uuid(), nullable=False))',
        'op.execute("UPDATE jobs SET priority = 0")',
    ],
)
def test_what_only_adds_is_let_through(operation: str) -> None:
    assert destructive_operations(f"def upgrade():\n    {operation}\n") == []


def test_what_undoes_a_revision_may_destroy() -> None:
    source = 'def upgrade():\n    pass\n\n\ndef downgrade():\n    op.drop_table("jobs")\n'
    assert destructive_operations(source) == []
