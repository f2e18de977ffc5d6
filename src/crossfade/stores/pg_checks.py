"""What was written in a part of a PostgreSQL table, and whether it is still there."""

from __future__ import annotations

from crossfade.stores.pg_parts import Names
from crossfade.stores.pg_server import Server
from crossfade.stores.pg_sql import Query, identifier, listed, literal, sql, text
from crossfade.stores.pg_table import Table
from crossfade.stores.records import Part, Receipt, Staged

SHOWN = 5


def receipt_of(
    server: Server, table: Table, names: Names, part: Part, within: Query, staged: Staged
) -> Receipt:
    """Counts the rows of a part, those without a vector, and sums up their marks."""
    query = text(
        "SELECT count(*), count(*) FILTER (WHERE {mark} = ''::bytea), "
        "encode(sha256(coalesce(string_agg({mark}, ''::bytea ORDER BY {key}), ''::bytea)), 'hex') "
        "FROM {table} WHERE {within}",
        mark=identifier(names.mark),
        key=table.key_columns,
        table=table.query,
        within=within,
    )
    rows, nulls, checksum = server.one(query)
    location = {
        "mark": names.mark,
        "staged": staged.name,
        "previous": staged.previous,
        "within": within.as_string(None),
        "bytes": (rows - nulls) * staged.new.dimension * 4,
    }
    return Receipt(part.key, part.source, rows, nulls, checksum, location)


def check_part(server: Server, table: Table, column: str, receipt: Receipt) -> str | None:
    """Read the vectors of a part again and compare them with their marks; the server does it.

    Returns:
        What is wrong, or None. Rows that others have changed or deleted meanwhile are not wrong.
    """
    if "mark" not in receipt.location:
        return None
    mark, staged, previous = (receipt.location[name] for name in ("mark", "staged", "previous"))
    new = table.columns.get(column if previous in table.columns else staged)
    if mark not in table.columns or new is None or new.vector is None:
        return f"column {staged!r} or {mark!r} is gone"
    found = server.all(
        text(
            "SELECT {key} FROM {table} WHERE {within} AND {mark} IS NOT NULL "
            "AND {mark} <> coalesce({again}, ''::bytea) ORDER BY {order} LIMIT {limit}",
            key=listed([text("{one}::text", one=identifier(one.name)) for one in table.key]),
            order=table.key_order,
            table=table.query,
            within=sql.SQL(receipt.location["within"]),
            mark=identifier(mark),
            again=new.vector.mark(identifier(new.name)),
            limit=literal(SHOWN),
        )
    )
    if not found:
        return None
    rows = "; ".join(", ".join(one) for one in found)
    return f"rows {rows} of part {receipt.part} have other content than was written"
