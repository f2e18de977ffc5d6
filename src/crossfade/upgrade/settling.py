"""What a plan is for: its adapter and its two spaces, from what the caller gave and an evaluation holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from crossfade.adapters import Adapter, load_adapter
from crossfade.encoders.base import Encoder
from crossfade.errors import StoreError, UnknownSpace, UnreadableFile, UsageError, WrongDirection
from crossfade.evaluation.bridge import Sample
from crossfade.evaluation.result import NATIVE, Evaluation
from crossfade.spaces import Space
from crossfade.stores import Store
from crossfade.upgrade.compatible import compatible_space
from crossfade.upgrade.plans import AdapterFile, Plan
from crossfade.upgrade.quality import Choice
from crossfade.upgrade.strategies import strategy as find_strategy
from crossfade.vectors.metadata import settle_space


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of `plan` wants, read and checked."""

    store: Store
    choice: Choice
    evaluation: Evaluation | None
    adapter: Adapter | str | Path | None
    encoder: Encoder | None
    held_out: Sample | None = None


def compatible_model(request: Request, old: Space | str | None, new: Space | None) -> Space | None:
    """Space of the new model if its queries need no map."""
    found = request.store.describe()
    if not found.dimension or (found.space is None and old is None):
        return None
    settled = settle_space(found.space, old, found.dimension, found.uri)
    return compatible_space(request.choice, request.evaluation, request.encoder, settled, new)


def find_adapter(request: Request) -> tuple[Adapter | None, str]:
    """The adapter in memory, and where it is saved; empty if it is not yet."""
    needed = find_strategy(request.choice.strategy).direction
    if needed is None:
        if request.adapter is not None and request.choice.strategy == NATIVE:
            raise UsageError(
                "strategy native searches without an adapter; leave it out, or plan --strategy query"
            )
        return None, ""
    given = request.adapter
    if given is None and request.evaluation is not None:
        given = _from_evaluation(request.evaluation, request.choice)
    if given is None:
        raise UsageError(
            f"strategy {request.choice.strategy} needs an adapter; fit one "
            f"(crossfade fit --direction {needed}) and name it (--adapter DIR)"
        )
    if isinstance(given, (str, Path)):
        return load_adapter(given), str(given)
    return given, ""


def _from_evaluation(evaluation: Evaluation, choice: Choice) -> Adapter | None:
    found: Adapter | None = evaluation.adapters.get(choice.row)
    if found is None and choice.method:
        direction = find_strategy(choice.strategy).direction
        prefix = "gallery" if direction == "forward" else "query"
        found = evaluation.adapters.get(f"{prefix}:{choice.method}")
    return found


def settle_spaces(
    request: Request, adapter: Adapter | None, old: Space | str | None, new: Space | None
) -> tuple[Space, Space]:
    found = request.store.describe()
    if not found.dimension:
        raise StoreError(f"{found.uri}: no vectors to upgrade; the table has {found.rows} rows")
    settled = settle_space(found.space, old, found.dimension, found.uri)
    _require_direction(adapter, request.choice.strategy, settled)
    candidates = [new, *_spaces_of(adapter, request.choice.strategy)]
    candidates += [request.evaluation.new] if request.evaluation else []
    candidates += [request.encoder.space] if request.encoder else []
    known = [one for one in candidates if one is not None]
    if not known and request.choice.strategy != "keep":
        raise UnknownSpace(
            "nothing says what the new model is; name it with --new-space NAME (new= in Python)"
        )
    return settled, known[0] if known else settled


def _require_direction(adapter: Adapter | None, strategy: str, old: Space) -> None:
    """An adapter of the wrong direction is named as such, before its spaces confuse everything else."""
    if adapter is None:
        return
    forward = find_strategy(strategy).direction == "forward"
    if old == (adapter.target if forward else adapter.source):
        raise WrongDirection(
            f"strategy {strategy} needs a map {'from' if forward else 'into'} {old}; this {adapter.name} "
            f"adapter maps from {adapter.source} to {adapter.target}: fit one in the other direction "
            f"(crossfade fit --direction {'forward' if forward else 'backward'})"
        )


def _spaces_of(adapter: Adapter | None, strategy: str) -> list[Space | None]:
    if adapter is None:
        return []
    forward = find_strategy(strategy).direction == "forward"
    return [adapter.target if forward else adapter.source]


def adapter_file(store: Store, draft: Plan, adapter: Adapter, location: str) -> AdapterFile:
    """Where the adapter is; one in memory is saved beside the table."""
    if not location:
        folder = store.neighbourhood / draft.id / "adapter"
        adapter.save_pretrained(folder)
        location = str(folder)
    return AdapterFile(str(Path(location).absolute()), adapter.name, adapter_checksum(Path(location)))


def adapter_checksum(directory: Path) -> str:
    """SHA-256 over the files that make an adapter what it is.

    Raises:
        UnreadableFile: one is missing.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        try:
            digest.update((directory / name).read_bytes())
        except OSError as error:
            raise UnreadableFile(
                f"{directory / name}: cannot be read ({error.strerror}); the plan needs this adapter: "
                "restore it, or plan again"
            ) from None
    return digest.hexdigest()
