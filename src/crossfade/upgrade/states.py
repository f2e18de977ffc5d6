"""The states of an upgrade, and which step leads from where to where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crossfade.errors import IllegalTransition


class State(str, Enum):
    """Where an upgrade stands."""

    PLANNED = "planned"
    TRANSFORMING = "transforming"
    BUILT = "built"
    VERIFIED = "verified"
    CUT_OVER = "cut_over"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a person asks for.

    Attributes:
        name: as on the command line.
        allowed: states that it may start from.
        through: states that it may enter.
    """

    name: str
    allowed: frozenset[State]
    through: tuple[State, ...]


_S = State
APPLY = Step(
    "apply",
    frozenset({_S.PLANNED, _S.TRANSFORMING, _S.BUILT, _S.VERIFIED, _S.ROLLED_BACK}),
    (_S.TRANSFORMING, _S.BUILT),
)
VERIFY = Step("verify", frozenset({_S.BUILT, _S.VERIFIED}), (_S.VERIFIED,))
CUTOVER = Step("cutover", frozenset({_S.VERIFIED, _S.ROLLED_BACK}), (_S.CUT_OVER,))
ROLLBACK = Step(
    "rollback",
    frozenset({_S.PLANNED, _S.TRANSFORMING, _S.BUILT, _S.VERIFIED, _S.CUT_OVER}),
    (_S.ROLLED_BACK,),
)
RETIRE = Step("retire", frozenset({_S.CUT_OVER, _S.ROLLED_BACK}), (_S.RETIRED,))
STEPS = (APPLY, VERIFY, CUTOVER, ROLLBACK, RETIRE)

NEXT = {
    _S.PLANNED: "crossfade apply",
    _S.TRANSFORMING: "crossfade apply (resumes)",
    _S.BUILT: "crossfade verify",
    _S.VERIFIED: "crossfade cutover",
    _S.CUT_OVER: "crossfade retire --confirm, or crossfade rollback",
    _S.ROLLED_BACK: "crossfade cutover to go forward again (crossfade apply, if it was not verified), "
    "or crossfade retire --confirm to give up",
    _S.RETIRED: "crossfade plan, for the next upgrade",
}


def require(step: Step, state: State, upgrade: str) -> None:
    """Refuse a step that does not follow from `state`.

    Raises:
        IllegalTransition: naming both, and what to do instead.
    """
    if state not in step.allowed:
        allowed = ", ".join(one.value for one in State if one in step.allowed)
        raise IllegalTransition(
            f"upgrade {upgrade} is {state}; {step.name} needs one that is {allowed}; next: {NEXT[state]}"
        )


def may_follow(source: State, target: State) -> bool:
    """Whether some step leads from `source` to `target`; a second verify that fails leads back."""
    if source == target or (source, target) in ((_S.TRANSFORMING, _S.BUILT), (_S.VERIFIED, _S.BUILT)):
        return True
    return any(source in step.allowed and target == step.through[0] for step in STEPS)
