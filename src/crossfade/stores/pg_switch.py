"""The columns and the trigger of an upgrade: made, renamed at the switch and back, dropped at the end.

Each of these is one transaction that holds the table for a few milliseconds. The trigger keeps new and
old vectors of a row from disagreeing: whichever the application writes is the one that counts, and the
other, made from or for an earlier content, becomes null.

* Before the switch the application writes old vectors. When it changes one (or a column that new vectors
  are made from), the row's new vector and mark become null, so the row is pending again.
* After the switch it writes new vectors. When it changes one, the row's old vector becomes null. An INSERT
  that names no columns would put its vector where the old ones are; it is refused.
"""

from __future__ import annotations

from typing import Any

from crossfade.errors import StoreError
from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, text
from crossfade.stores.pg_table import REQUIRED_NOTE, UPGRADE_NOTE, Column, Table, note
from crossfade.stores.records import Staged

TRIGGER_PREFIX = "zzz_"
"""Triggers fire in the order of their names; ours has to see what the others made of the row."""
REFUSAL = "_refuse"


def stage(connection: Any, table: Table, staged: Staged, names: Names, kind: Query) -> None:
    """Add the column of the new vectors and the mark, both empty, and the trigger."""
    connection.execute(
        text(
            "ALTER TABLE {table} ADD COLUMN {new} {kind}, ADD COLUMN {mark} bytea",
            table=table.query,
            new=identifier(staged.name),
            kind=kind,
            mark=identifier(names.mark),
        )
    )
    for name in (staged.name, names.mark):
        comment = literal(f"crossfade.{UPGRADE_NOTE}: {staged.upgrade}")
        connection.execute(
            text("COMMENT ON COLUMN {column} IS {comment}", column=_in(table, name), comment=comment)
        )
    _arm(connection, table, names.mark, watched=(names.old, *staged.reads), emptied=(staged.name, names.mark))


def switch(connection: Any, table: Table, staged: Staged, names: Names, indexes: dict[str, str]) -> None:
    """Give the new vectors the old ones' name, and their index the old one's.

    Args:
        indexes: new name of each index that is renamed, by its name now, in order.
    """
    column = table.column(names.old)
    _disarm(connection, table, names.mark)
    _rename(connection, table, names.old, staged.previous)
    _rename(connection, table, names.new, column.name)
    _rename_indexes(connection, table, indexes)
    if column.required:
        previous = identifier(staged.previous)
        statement = "ALTER TABLE {table} ALTER COLUMN {previous} DROP NOT NULL"
        connection.execute(text(statement, table=table.query, previous=previous))
        note(connection, table, table.column(names.mark), **{REQUIRED_NOTE: "yes"})
    _arm(connection, table, names.mark, watched=(column.name,), emptied=(staged.previous, names.mark))
    _refuse_inserts(connection, table, names.mark, staged.previous)


def switch_back(connection: Any, table: Table, staged: Staged, names: Names, indexes: dict[str, str]) -> None:
    """The same the other way round; a row may again come without a new vector."""
    _disarm(connection, table, names.mark)
    _allow_nulls(connection, table, table.column(names.new))
    _rename(connection, table, names.new, staged.name)
    _rename(connection, table, names.old, names.new)
    _rename_indexes(connection, table, indexes)
    watched = (names.new, *staged.reads)
    _arm(connection, table, names.mark, watched=watched, emptied=(staged.name, names.mark))


def drop(connection: Any, table: Table, names: Names, vectors: str) -> None:
    """Drop the trigger, the mark and a column of vectors, with its indexes."""
    _disarm(connection, table, names.mark)
    for name in (names.mark, names.mark + REFUSAL):
        function = identifier(table.schema, name)
        connection.execute(text("DROP FUNCTION IF EXISTS {function}()", function=function))
    columns = [text("DROP COLUMN IF EXISTS {one}", one=identifier(one)) for one in (vectors, names.mark)]
    connection.execute(text("ALTER TABLE {table} {columns}", table=table.query, columns=listed(columns)))


def require_trigger(connection: Any, table: Table, names: Names, what: str) -> None:
    """Without the trigger, nobody knows what others have changed.

    Raises:
        StoreError: it is gone or disabled.
    """
    query = "SELECT tgenabled FROM pg_trigger WHERE tgrelid = %s AND tgname = %s"
    found = connection.execute(query, [table.oid, TRIGGER_PREFIX + names.mark]).fetchone()
    if found is None or found[0] == "D":
        raise StoreError(
            f"{what}: trigger {TRIGGER_PREFIX + names.mark!r} is {'disabled' if found else 'gone'}, so rows "
            "that others changed meanwhile are not known; begin again: crossfade rollback, crossfade retire "
            "--confirm, crossfade plan"
        )


def _arm(
    connection: Any, table: Table, mark: str, watched: tuple[str, ...], emptied: tuple[str, ...]
) -> None:
    """A trigger that empties columns when others change; not for the upgrade itself, which sets the mark."""
    function = identifier(table.schema, mark)
    body = "BEGIN " + "".join(f"NEW.{_quoted(one)} := NULL; " for one in emptied) + "RETURN NEW; END"
    connection.execute(
        text(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {body}",
            function=function,
            body=literal(body),
        )
    )
    trigger = identifier(TRIGGER_PREFIX + mark)
    parts = {"trigger": trigger, "table": table.query, "function": function, "mark": identifier(mark)}
    connection.execute(
        text(
            "CREATE TRIGGER {trigger} BEFORE UPDATE ON {table} FOR EACH ROW WHEN "
            "(NEW.{mark} IS NOT DISTINCT FROM OLD.{mark} AND ({changed})) EXECUTE FUNCTION {function}()",
            changed=listed([_changed(table, one) for one in watched], " OR "),
            **parts,
        )
    )
    # Also for what a replication subscription writes.
    connection.execute(text("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}", **parts))


def _changed(table: Table, name: str) -> Query:
    """Whether an update changes a column; by its text, where its type may have no equality."""
    column = table.columns.get(name)
    cast = "" if column is None or column.vector else "::text"
    return text(
        "NEW.{column}" + cast + " IS DISTINCT FROM OLD.{column}" + cast,
        column=identifier(name),
    )


def _refuse_inserts(connection: Any, table: Table, mark: str, previous: str) -> None:
    """Nothing is put into the column of the old vectors any more."""
    message = (
        f"column {previous!r} holds the vectors of before an upgrade and is not written any more; "
        "name the columns in INSERT"
    )
    body = f"BEGIN RAISE EXCEPTION USING MESSAGE = {literal(message).as_string(None)}; END"
    parts = {
        "function": identifier(table.schema, mark + REFUSAL),
        "trigger": identifier(TRIGGER_PREFIX + mark + REFUSAL),
        "table": table.query,
        "previous": identifier(previous),
        "body": literal(body),
    }
    for statement in (
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {body}",
        "CREATE TRIGGER {trigger} BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.{previous} IS NOT NULL) "
        "EXECUTE FUNCTION {function}()",
    ):
        connection.execute(text(statement, **parts))


def _disarm(connection: Any, table: Table, mark: str) -> None:
    for name in (mark, mark + REFUSAL):
        trigger = identifier(TRIGGER_PREFIX + name)
        statement = text("DROP TRIGGER IF EXISTS {trigger} ON {table}", trigger=trigger, table=table.query)
        connection.execute(statement)


def _rename(connection: Any, table: Table, old: str, new: str) -> None:
    statement = text(
        "ALTER TABLE {table} RENAME COLUMN {old} TO {new}",
        table=table.query,
        old=identifier(old),
        new=identifier(new),
    )
    connection.execute(statement)


def _rename_indexes(connection: Any, table: Table, indexes: dict[str, str]) -> None:
    for old, new in indexes.items():
        statement = text(
            "ALTER INDEX {old} RENAME TO {new}", old=identifier(table.schema, old), new=identifier(new)
        )
        connection.execute(statement)


def require_values(server: Server, table: Table, column: Column) -> None:
    """Forbid null in a column again, without holding the table while its rows are read.

    Each statement is a transaction of its own; after a crash in between, all are done again.
    """
    parts = {"table": table.query, "check": _check(column), "column": identifier(column.name)}

    def alter(*changes: str) -> None:
        statement = text("ALTER TABLE {table} " + ", ".join(changes), **parts)
        server.locking(table.query, "ACCESS EXCLUSIVE", lambda connection: connection.execute(statement))

    drop = "DROP CONSTRAINT IF EXISTS {check}"
    alter(drop, "ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID")
    with server.connection() as connection:
        connection.execute(text("ALTER TABLE {table} VALIDATE CONSTRAINT {check}", **parts))
    alter("ALTER COLUMN {column} SET NOT NULL")
    alter(drop)


def _allow_nulls(connection: Any, table: Table, column: Column) -> None:
    """Undo `require_values`, however far it came."""
    connection.execute(
        text(
            "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}, ALTER COLUMN {column} DROP NOT NULL",
            table=table.query,
            check=_check(column),
            column=identifier(column.name),
        )
    )


def _check(column: Column) -> Query:
    return identifier(f"crossfade_{column.number}_not_null")


def _in(table: Table, column: str) -> Query:
    return identifier(table.schema, table.name, column)


def _quoted(name: str) -> str:
    quoted: str = identifier(name).as_string(None)
    return quoted
