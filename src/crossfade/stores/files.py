"""Vectors in a file: the new ones go into a new file beside it, and the two exchange names.

A file has neither transactions nor a record of changes. Vectors that cost an encoder's time are first
written part by part into files of their own, then the new file as a whole from these and from what else
the old one holds; those that are cheap to make again go into the new file alone. At the switch the file
must be the one that the new one was made from; if somebody has replaced it, what differs is written first.
Who replaces the file last, before the switch, wins.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crossfade.errors import CrossfadeError, StoreError
from crossfade.stores.file_assembly import Assembly, Feed, Form, Place, Tally, Vectors, checksum_of, unknown
from crossfade.stores.file_content import Content, identity
from crossfade.stores.file_parts import Listing, Span
from crossfade.stores.file_reading import FileReader
from crossfade.stores.file_vectors import PartFile, Piece, check_vectors_file, make
from crossfade.stores.file_versions import file_name, remove_folder
from crossfade.stores.records import IndexInfo, Part, PartGone, Pause, Produce, Produced, Receipt, Staged
from crossfade.vectors import BATCH_ROWS

ATTEMPTS = 10
EXCHANGE_SECONDS = 0.1
"""Looking at the file once more and exchanging two names."""


class FileStore(FileReader):
    """A column of vectors in a file.

    A subclass opens a version of the file (`_open_file`) and writes a new one (`_write_file`).
    """

    # --- for subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _write_file(
        self,
        target: Path,
        content: Content,
        vectors: Vectors,
        staged: Staged,
        like: IndexInfo | None,
    ) -> None:
        """Write `target`: the rows of `content` with these vectors instead, which have their `_form`.

        `vectors` may be called only once where `writes_once` says so; another thread may read `content`.
        """

    def _form(self, content: Content, staged: Staged) -> Form:
        """What turns new vectors (NaN where a row has none) into those that the new file gives back."""
        return lambda vectors: vectors

    @staticmethod
    def _file_part(version: str) -> str:
        return version.partition(" ")[0]

    def _give_rows_back(self, staged: Staged) -> None:
        """Before the old file is put in use again: bring rows into it that were written since the switch."""

    # --- writing ------------------------------------------------------------------------------

    def parts(self, staged: Staged) -> list[Part]:
        return [one.part for one in self._spans(staged)[1]]

    def pending(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        """Parts that are not written, or were before they changed; after the switch none is."""
        if self.switched(staged):
            return []
        return [one.part for one in self._lacking(self._spans(staged)[1], staged, receipts)]

    def _lacking(self, spans: Sequence[Span], staged: Staged, receipts: Mapping[str, Receipt]) -> list[Span]:
        places = self._places(staged)
        return [one for one in spans if not self._is_written(receipts.get(one.key), one, staged, places)]

    def _is_written(
        self, receipt: Receipt | None, span: Span, staged: Staged, places: Mapping[str, Place]
    ) -> bool:
        if receipt is None or receipt.source != span.source:
            return False
        if "file" in receipt.location:
            return span.key in places and places[span.key].checksum == receipt.checksum
        if not receipt.location:
            return True
        path = self._parts_folder(staged) / receipt.location["path"]
        return bool(path.exists() and path.stat().st_size == receipt.location["bytes"])

    def _places(self, staged: Staged) -> Mapping[str, Place]:
        """Parts that lie in the new file, if there is one and it is the one that was written."""
        made = self._assembly(staged.name)
        return made.parts if made is not None and self._is_whole(staged.name, made) else {}

    def _is_whole(self, name: str, made: Assembly) -> bool:
        return made.damage(self._versions.place(name)) is None

    def write_part(self, part: Part, staged: Staged, produce: Produce, *, rows: int = BATCH_ROWS) -> Receipt:
        content, spans = self._spans(staged, digested=True)
        span = next((one for one in spans if one.key == part.key), None)
        if span is None:
            raise PartGone(f"{self.uri}: part {part.key} is gone: the file was rewritten; run apply again")
        path = self._parts_folder(staged) / f"{span.key}-{span.source}.npy"
        file = PartFile(path, staged.new.dimension, self.uri)
        written = file.write(content, span, produce, staged.reads, rows, self._written_new(staged))
        location = {"path": path.name, "bytes": written["bytes"]}
        return Receipt(span.key, span.source, span.rows, written["nulls"], written["checksum"], location)

    def _written_new(self, staged: Staged) -> Content | None:
        """New vectors that exist already, some of which only the application can have written."""
        try:
            return self._content(staged.name) if self._versions.place(staged.name).exists() else None
        except StoreError:
            return None  # a damaged file: nothing in it can be kept

    def writes_once(self, staged: Staged) -> bool:
        """Whether the new file can be written while its vectors are made."""
        return True

    def write_once(
        self,
        staged: Staged,
        receipts: Mapping[str, Receipt],
        produce: Produce,
        begin: Callable[[Part], None],
        *,
        rows: int = BATCH_ROWS,
    ) -> list[Receipt]:
        """Write the new file while the vectors that are pending are made, and no part into a file of its own.

        For vectors that are cheap to make again: none of them is kept unless all are written.

        Args:
            begin: called with each part before it is produced.
            rows: given to `produce` at once; batches are those of `write_part`.

        Returns:
            Receipts of the parts that were pending.
        """
        self._versions.settle()
        if self.switched(staged):
            return []
        content, spans = self._spans(staged)
        lacking = self._lacking(spans, staged, receipts)
        begun: list[Span] = []

        def make_piece(piece: Piece) -> Produced:
            if piece.span not in begun[-1:]:
                begun.append(piece.span)
                begin(piece.span.part)
            return make(piece, produce, staged.new.dimension, self.uri)

        if not lacking:
            return []
        return self._write_new(content, spans, lacking, staged, receipts, rows, make_piece)

    def publish(self, staged: Staged, receipts: Mapping[str, Receipt]) -> list[Part]:
        self._versions.settle()
        if self.switched(staged):
            return []
        content, spans = self._spans(staged)
        lacking = self._lacking(spans, staged, receipts)
        if not lacking and not self._is_made(staged):
            self._write_new(content, spans, lacking, staged, receipts)
        return [one.part for one in lacking]

    def _is_made(self, staged: Staged) -> bool:
        """Whether there is a new file that was made from the old one as it is."""
        made, now = self._assembly(staged.name), (self._version_of(self._live), str(self._like(staged)))
        return made is not None and (made.version, made.index) == now and self._is_whole(staged.name, made)

    def _write_new(
        self,
        content: Content,
        spans: Sequence[Span],
        lacking: Sequence[Span],
        staged: Staged,
        receipts: Mapping[str, Receipt],
        rows: int = BATCH_ROWS,
        make_piece: Callable[[Piece], Produced] | None = None,
    ) -> list[Receipt]:
        """Write the new file, then note what it was made from; returns receipts of parts that were made."""
        version, like, target = self._opened[self._live][0], self._like(staged), self._place(staged)
        places = self._places(staged)
        feed = Feed(
            content,
            spans,
            receipts,
            places,
            frozenset(one.key for one in lacking),
            self._written_new(staged),
            self._parts_folder(staged),
            self._form(content, staged),
            staged.new.dimension,
        )
        tally = Tally(content.nulls_lie_there)

        def write(vectors: Vectors) -> None:
            self._write_file(target, content, vectors, staged, like)

        if self.writes_once(staged):
            feed.flow(write, tally, staged.reads, rows, make_piece)
        else:
            write(lambda: feed.stock(tally))
        spans, lacking = feed.digests.of(spans), feed.digests.of(lacking)
        self._listing(staged).remember(version, staged.reads, spans)
        made = [tally.receipt(one, staged.name, staged.new.dimension) for one in lacking]
        known = {**receipts, **{one.part: one for one in made}}
        self._note(staged, version, str(like), tally.places(spans, known, places))
        return made

    def _place(self, staged: Staged) -> Path:
        """The new file, of which its folder now knows."""
        target = self._versions.place(staged.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._versions.begin(staged)
        return target

    def _note(self, staged: Staged, version: str, index: str, places: Mapping[str, Place]) -> None:
        made = identity(self._versions.place(staged.name))
        Assembly(version, index, made, places).write(self._facts(staged.name))

    def _like(self, staged: Staged) -> IndexInfo | None:
        """What the index of the new file is to be like."""
        return self._content().index()

    def check_part(self, receipt: Receipt) -> str | None:
        if not receipt.location:
            return None
        if "file" in receipt.location:
            return self._check_place(receipt)
        found = list(self._versions.neighbourhood.glob(f"*/parts/{receipt.location['path']}"))
        return check_vectors_file(found[0] if found else None, receipt)

    def check_whole(self, staged: Staged) -> str | None:
        """`Store.check_whole`; after a switch the file is the application's, which may have written it."""
        if self.switched(staged):
            return None
        target, made = self._versions.place(staged.name), self._assembly(staged.name)
        if made is None:
            return (
                f"file {target.name} was never whole: if the old one is replaced too often, pause its writers"
            )
        return made.damage(target)

    def distrust(self, staged: Staged, receipts: Mapping[str, Receipt]) -> None:
        for one in receipts.values():
            if "path" in one.location and self.check_part(one):
                (self._parts_folder(staged) / one.location["path"]).unlink(missing_ok=True)
        if made := self._assembly(staged.name):
            replace(made, identity="").write(self._facts(staged.name))

    def _check_place(self, receipt: Receipt) -> str | None:
        """Read the part again where it lies in the new file."""
        name = receipt.location["file"]
        target, made = self._versions.place(name), self._assembly(name)
        if made is None:
            return f"file {target.name} is gone"
        if damage := made.damage(target):
            return damage
        place = made.parts.get(receipt.part)
        if place is None or place.checksum != receipt.checksum:
            return f"part {receipt.part} is not in file {target.name}"
        if place.start is None:
            return None
        try:
            found = checksum_of(self._content(name).as_written(place.start, place.rows))
        except CrossfadeError as error:
            return f"file {target.name} cannot be read: {error}"
        same = found == receipt.checksum
        return (
            None if same else f"file {target.name} has other content in part {receipt.part} than was written"
        )

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """The index is a part of the file, which `publish` writes."""

    def switch(self, staged: Staged, receipts: Mapping[str, Receipt], *, strict: bool = True) -> list[Part]:
        """Files are always switched strictly: what is not in the new file would be lost with the name."""
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            if missing := self.publish(staged, receipts):
                if not strict:
                    raise self._never_still(time.perf_counter() - started)
                return missing
            if self.switched(staged):
                return []
            made = self._assembly(staged.name)
            assert made is not None
            if self._versions.exchange(staged.name, staged.previous, self._file_part(made.version)):
                return []
        raise self._never_still(time.perf_counter() - started)

    def pause(self, staged: Staged, rows_per_second: float) -> Pause | None:
        anew = self._content().rows / rows_per_second
        why = f"let writers stand still; {anew:.1f} s if the file was replaced since apply"
        return Pause(EXCHANGE_SECONDS, why)

    def _never_still(self, seconds: float) -> StoreError:
        return StoreError(
            f"{self.uri}: the file was replaced each time before its new version was complete; nothing was "
            f"switched: let its writers pause for about {seconds + 1:.0f} s and run crossfade cutover again"
        )

    def switch_back(self, staged: Staged) -> None:
        self._versions.settle()
        if self.switched(staged):
            self._give_rows_back(staged)
            self._versions.exchange(staged.previous, staged.name)
            made, index = self._assembly(staged.name), str(self._like(staged))
            places = unknown(made.parts) if made else {}
            self._note(staged, self._version_of(self._live), index, places)

    def switched(self, staged: Staged) -> bool:
        return self._versions.switched(staged)

    def drop_old(self, staged: Staged) -> None:
        self._versions.settle()
        self._versions.end(staged)
        self._versions.drop(staged.previous)
        self._forget(staged)

    def drop_new(self, staged: Staged) -> None:
        self._versions.settle()
        if self.switched(staged):
            raise StoreError(f"{self.uri}: the new vectors are in use; roll back before they are dropped")
        self._versions.end(staged)
        self._forget(staged)
        self._versions.drop(staged.name)

    def _forget(self, staged: Staged) -> None:
        self._facts(staged.name).unlink(missing_ok=True)
        remove_folder(self._parts_folder(staged))

    # --- surroundings -------------------------------------------------------------------------

    def bytes_for(self, rows: int, dimension: int, *, once: bool = False) -> int:
        """The vectors twice, as parts and in the new file, and there whatever else the file holds.

        Args:
            once: the vectors are written into the new file alone.
        """
        content = self._content()
        besides = max(0, self._live.stat().st_size - content.rows * content.dimension * 4)
        return (1 if once else 2) * super().bytes_for(rows, dimension) + besides

    @contextmanager
    def alone(self, action: str) -> Iterator[None]:
        """The journal's lease keeps others away; what a killed process left half written goes."""
        self._versions.clear()
        yield

    def _parts_folder(self, staged: Staged) -> Path:
        return self.neighbourhood / staged.upgrade / "parts"

    def _facts(self, name: str) -> Path:
        return self._versions.folder / f"{file_name(name)}.json"

    def _assembly(self, name: str) -> Assembly | None:
        """What is known of the new file of the vectors called `name`."""
        return Assembly.read(self._facts(name))

    def digest_parts(self, staged: Staged) -> None:
        """Read the file, so that what parts are made from is known before any is written.

        To be called before vectors are made of which some are kept although the file is replaced.
        """
        self._spans(staged, digested=True)

    def _listing(self, staged: Staged) -> Listing:
        return Listing(self._parts_folder(staged), self.part_rows)

    def _spans(self, staged: Staged, *, digested: bool = False) -> tuple[Content, list[Span]]:
        """The old vectors as they are now, and their parts."""
        old = self.columns_of(staged)[0]
        path = self._live if old == self.column else self._versions.place(old)
        content, self._listed = self._content(old), None
        version = self._opened[path][0]
        self._listed = self._listing(staged).spans(content, version, staged.reads, digested)
        return content, self._listed
