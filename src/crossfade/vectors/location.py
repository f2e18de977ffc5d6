"""Where a LanceDB table is: ``lancedb://DIR#table.column``."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.errors import UsageError

SCHEME = "lancedb://"


@dataclass(frozen=True, slots=True)
class LanceLocation:
    """A vector column of a LanceDB table.

    Attributes:
        directory: the database: a folder, or an address on object storage.
        table: name of the table.
        column: name of the vector column; empty where the address names none.
    """

    directory: str
    table: str
    column: str = ""

    def __str__(self) -> str:
        column = f".{self.column}" if self.column else ""
        return f"{SCHEME}{self.directory}#{self.table}{column}"

    @property
    def dataset(self) -> str:
        """Address of the Lance dataset that holds the table."""
        return f"{self.directory.rstrip('/')}/{self.table}.lance"

    @classmethod
    def parse(cls, text: str) -> LanceLocation:
        """Read ``lancedb://DIR#table[.column]``; the column is what follows the last dot.

        Raises:
            UsageError: another form.
        """
        directory, _, names = text.removeprefix(SCHEME).rpartition("#")
        table, dot, column = names.rpartition(".")
        if not dot:
            table, column = names, ""
        if not text.startswith(SCHEME) or not directory or not table or (dot and not column):
            raise UsageError(f"{text!r} is no LanceDB address; write lancedb://DIR#table.column")
        return cls(directory, table, column)
