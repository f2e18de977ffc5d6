"""psycopg, and short names for pieces of SQL. Imported only where a PostgreSQL store is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfade.extras import load

psycopg: Any = load("psycopg", "pgvector")
sql: Any = load("psycopg.sql", "pgvector")
Query = Any
"""A piece of SQL, composed with `psycopg.sql`."""

NAME_BYTES = 63
"""PostgreSQL cuts longer names off."""


def identifier(*names: str) -> Query:
    """A quoted name, of several parts where it is qualified."""
    return sql.Identifier(*names)


def text(query: str, **parts: Query) -> Query:
    """SQL with ``{name}`` replaced by pieces of SQL; values stay ``%s``."""
    return sql.SQL(query).format(**parts)


def literal(value: object) -> Query:
    """A quoted value, for statements that take no parameters."""
    return sql.Literal(value)


def listed(parts: Sequence[Query], between: str = ", ") -> Query:
    """Pieces of SQL one after the other."""
    return sql.SQL(between).join(parts)
