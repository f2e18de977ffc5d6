"""PostgreSQL with pgvector: new vectors as a second column, switched by renaming both in one transaction.

New vectors are written into the table itself, row by row in batches (`pg_writer`); a trigger makes a new
vector null when what it was made from changes, so that exactly the rows without one are pending
(`pg_parts`, `pg_switch`). At the switch, writers wait while the last of these are written and both columns
and their indexes take their new names; readers wait for the renaming alone. Nobody queues up for longer
than a short lock timeout, after which the switch is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crossfade.errors import StoreError
from crossfade.spaces import Space
from crossfade.stores import pg_index, pg_obstacles, pg_parts, pg_pause, pg_rehearsal, pg_switch
from crossfade.stores.pg_checks import check_part, receipt_of
from crossfade.stores.pg_column import PgColumn
from crossfade.stores.pg_parts import CHANGED, Names
from crossfade.stores.pg_sql import identifier, text
from crossfade.stores.pg_table import REQUIRED_NOTE, SPACE_NOTE, UPGRADE_NOTE, Table, note, space_note
from crossfade.stores.pg_writer import RowWriter
from crossfade.stores.records import Capabilities, IndexInfo, Part, Pause, Produce, Receipt, Staged, Write
from crossfade.vectors import BATCH_ROWS, FloatMatrix

MOST_IN_PAUSE = 100
"""More rows than these are not written while others wait, for the table or for one of these rows."""


class PgVector(PgColumn):
    """A column of type ``vector`` or ``halfvec`` in a PostgreSQL table: read, and upgraded.

    Its arguments, and what it raises, are those of `PgColumn`.
    """

    capabilities = Capabilities(
        beside="column",
        switch="rename (one transaction)",
        catches_up="row by row: a trigger empties the new vector of a row that changes; writers wait for the "
        "last rows: at most a hundred, unless they write faster than they are caught up with",
        index=pg_index.TYPES,
        cannot=(
            "upgrade partitioned tables, views or tables without a key",
            "spare the index of the old vectors altogether: rows are written in an order in which most stay "
            "where they are and out of every index, but some are entered into it again, and all while a "
            "transaction elsewhere stays open",
            "keep prepared statements that return the vectors: after the switch they must be prepared again",
            "keep the place of the column in SELECT *: the new one stands at the end",
        ),
        lacks=("steady batches", "apart"),
    )

    # --- writing ------------------------------------------------------------------------------

    def record_space(self, space: Space) -> None:
        table = self._read()
        with self._server.connection() as connection:
            note(connection, table, table.column(self.column), **{SPACE_NOTE: space_note(space)})

    def parts(self, staged: Staged) -> list[Part]:
        return pg_parts.all_parts(self._server, self._read(), self._drawn())

    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        table = self._read()
        names = Names.of(table, self.column, staged)
        return pg_parts.pending_parts(self._server, table, self._drawn(), names, receipts)

    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        table, names = self._stage(staged)
        dimensions = (self._dimension(table, names.old), staged.new.dimension)
        further = self._fields(table, staged.reads)
        quiet = bool(pg_obstacles.update_triggers(self._server, table)) and pg_obstacles.may_silence(
            self._server
        )
        writer = RowWriter(self._server, table, names, self._ids(table), further, dimensions, quiet)
        if part.key.startswith(CHANGED):
            # Others write to just these rows, and wait for those that are written with theirs.
            done = writer.write(text("true"), produce, min(rows, MOST_IN_PAUSE), by_place=False)
            location = {"rows": done.rows, "bytes": 0}
            return Receipt(part.key, part.source, 0, done.nulls, done.digest.hexdigest(), location)
        within = self._drawn().within(int(part.key))
        writer.write(within, produce, rows, by_place=True)
        return receipt_of(self._server, table, names, part, within, staged)

    def rehearse(self, batches: Iterator[FloatMatrix], staged: Staged) -> None:
        kind = self._read().column(self.column).vector
        assert kind is not None
        if not pg_rehearsal.rehearse(self._server, kind, staged.new.dimension, batches):
            super().rehearse(batches, staged)

    def begun(self, staged: Staged) -> bool:
        return Names.of(self._read(), self.column, staged).staged

    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        table, names = self._stage(staged)
        if table.column(names.new).space is None:
            with self._server.connection() as connection:
                for name, space in ((names.new, staged.new), (names.old, staged.old)):
                    note(connection, table, table.column(name), **{SPACE_NOTE: space_note(space)})
        missing = self.pending(staged, receipts)
        if all(one.key.startswith(CHANGED) for one in missing):
            pg_index.build_todo_index(self._server, table, names.mark)
        return missing

    def check_part(self, receipt: Receipt) -> str | None:
        return check_part(self._server, self._read(), self.column, receipt)

    def left_null(self, staged: Staged, receipts: Mapping[str, Receipt]) -> int:
        table = self._read()
        names = Names.of(table, self.column, staged)
        query = text(
            "SELECT count(*) FROM {table} WHERE {mark} = ''::bytea",
            table=table.query,
            mark=identifier(names.mark),
        )
        return int(self._server.one(query)[0]) if names.staged else 0

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        kind = self._read().column(self.column).vector
        half = kind is not None and kind.name == "halfvec"
        return vectors.astype(np.float16).astype(np.float32) if half else vectors

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        table = self._read()
        names = Names.of(table, self.column, staged)
        metric = like.metric if staged.old.metric == staged.new.metric else staged.new.metric
        pg_index.build_index(self._server, table, table.column(names.new), f"{names.mark}_new", like, metric)

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        missing = self.publish(staged, receipts)
        if self.switched(staged) or (missing and strict):
            return missing

        def attempt(connection: Any) -> list[Part]:
            with self._server.hold(connection):
                missing = self.pending(staged, receipts)
                if not (missing and strict):
                    self._switch(connection, staged)
                return missing if strict else []

        missing = self._server.locking(self._read().query, "ACCESS EXCLUSIVE", attempt)
        return missing or self.pending(staged, receipts)

    def switch_pausing(
        self, staged: Staged, receipts: Mapping[str, Receipt], write: Write, *, strict: bool = True
    ) -> list[Part]:
        missing = self.publish(staged, receipts)
        if self.switched(staged) or (strict and _too_many(missing)):
            return missing

        def attempt(connection: Any) -> list[Part]:
            with self._server.hold(connection):
                missing = self.pending(staged, receipts)
                if missing and not (strict and _too_many(missing)):
                    write(missing)
                    missing = self.pending(staged, receipts)
                if not missing:
                    self._server.lock(connection, self._read().query, "ACCESS EXCLUSIVE")
                    self._switch(connection, staged)
                return missing

        return self._server.locking(self._read().query, "SHARE ROW EXCLUSIVE", attempt)

    def _switch(self, connection: Any, staged: Staged) -> None:
        table = self._read()
        names = Names.of(table, self.column, staged)
        pg_switch.require_trigger(connection, table, names, self.uri)
        old = pg_index.describe_index(self._server, table, table.column(names.old))
        new = pg_index.describe_index(self._server, table, table.column(names.new))
        renamed = {old.name: f"{names.mark}_old", new.name: old.name} if old and new else {}
        pg_switch.switch(connection, table, staged, names, renamed)

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        """Measured now, for `pg_pause.WATCH_SECONDS` while an upgrade is under way."""
        table = self._read()
        names = Names.of(table, self.column, staged)
        under_way = names.staged and not names.switched
        backlog = pg_pause.measure_backlog(self._server, table, names) if under_way else None
        look, dimension = backlog.look if backlog else 0.0, staged.new.dimension
        costs = pg_pause.measure_costs(self._server, table, names, dimension, rows_per_second, look)
        most, rounds = MOST_IN_PAUSE, self.strict_rounds
        rows = pg_pause.rows_waited_for(backlog, costs, most, rounds) if backlog else most
        return Pause(
            costs.empty + rows * costs.row,
            f"writers wait while the last rows are written, at most {MOST_IN_PAUSE} unless they write faster "
            "than they are caught up with; readers wait for the renaming alone",
        )

    def switch_back(self, staged: Staged) -> None:
        def attempt(connection: Any) -> None:
            with self._server.hold(connection):
                table = self._read()
                names = Names.of(table, self.column, staged)
                if not names.switched:
                    return
                new = pg_index.describe_index(self._server, table, table.column(names.new))
                old = pg_index.describe_index(self._server, table, table.column(names.old))
                renamed = {new.name: f"{names.mark}_new", old.name: new.name} if old and new else {}
                pg_switch.switch_back(connection, table, staged, names, renamed)

        self._server.locking(self._read().query, "ACCESS EXCLUSIVE", attempt)

    def switched(self, staged: Staged) -> bool:
        return staged.previous in self._read().columns

    def drop_old(self, staged: Staged) -> None:
        self._drop(staged, staged.previous)

    def drop_new(self, staged: Staged) -> None:
        if self.switched(staged):
            raise StoreError(f"{self.uri}: the new vectors are in use; roll back before they are dropped")
        self._drop(staged, staged.name)

    def _drop(self, staged: Staged, vectors: str) -> None:
        before = self._read()
        names = Names.of(before, self.column, staged)
        mark = before.columns.get(names.mark)
        if mark is not None and REQUIRED_NOTE in mark.notes and not self.count_null(self.column):
            pg_switch.require_values(self._server, before, before.column(self.column))

        def attempt(connection: Any) -> None:
            with self._server.hold(connection):
                table = self._read()
                note(connection, table, table.column(self.column), **{UPGRADE_NOTE: None})
                pg_switch.drop(connection, table, names, vectors)

        self._server.locking(before.query, "ACCESS EXCLUSIVE", attempt)

    def _stage(self, staged: Staged) -> tuple[Table, Names]:
        """Make the column, the mark and the trigger of an upgrade, unless they are there."""
        table = self._read()
        names = Names.of(table, self.column, staged)
        if names.staged:
            return table, names
        if staged.name in table.columns:
            raise StoreError(
                f"{self.uri}: column {staged.name!r} exists already and is not of upgrade {staged.upgrade}; "
                "end the upgrade that made it, or drop it"
            )
        kind = table.column(self.column).vector
        assert kind is not None
        size = kind.sized(staged.new.dimension)

        def attempt(connection: Any) -> None:
            pg_switch.stage(connection, table, staged, names, size)

        self._server.locking(table.query, "ACCESS EXCLUSIVE", attempt)
        table = self._read()
        return table, Names.of(table, self.column, staged)


def _too_many(parts: list[Part]) -> bool:
    """Whether these are not to be written while writers wait."""
    first = any(not one.key.startswith(CHANGED) for one in parts)
    return first or sum(one.rows for one in parts) > MOST_IN_PAUSE
