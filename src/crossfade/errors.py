"""What can go wrong, as one exception tree.

Every message says what happened, both values, and what to do next. The command line prints it as
one line and exits with ``exit_code``; exceptions of third-party libraries never cross our boundary
for a foreseeable mistake.
"""

from __future__ import annotations


class CrossfadeError(Exception):
    """Base class of every error that Crossfade raises on purpose."""

    exit_code = 2


class UsageError(CrossfadeError, ValueError):
    """An option or argument is outside what the call accepts."""


class MissingExtra(CrossfadeError, ImportError):
    """An optional dependency is not installed; the message carries the pip line."""


class NotFittedError(CrossfadeError, AttributeError):
    """An adapter was used before ``fit``."""


class NotSupported(CrossfadeError, NotImplementedError):
    """This method, store or encoder cannot do what was asked of it."""


class Interrupted(CrossfadeError):
    """Ctrl-C; what was finished is kept."""


# --- spaces -----------------------------------------------------------------------------------


class SpaceError(CrossfadeError, ValueError):
    """Vectors of two different embedding spaces were about to be mixed."""


class UnknownSpace(SpaceError):
    """Nothing says which model made these vectors, and guessing is how galleries are ruined."""


class SpaceMismatch(SpaceError):
    """Two spaces are not equal (perhaps of equal dimension: the classic silent failure)."""


class DimensionMismatch(SpaceError):
    """A vector's length differs from the dimension of the space it should be in."""


class WrongDirection(SpaceError):
    """An adapter was asked to map from the space that it maps into."""


# --- vectors ----------------------------------------------------------------------------------


class DataError(CrossfadeError, ValueError):
    """The input is unreadable or holds values that no search can use."""


class InvalidVectors(DataError):
    """NaN, infinite or zero vectors."""


class DuplicateIds(DataError):
    """An id occurs more than once where it must be unique."""


class IdMismatch(DataError):
    """Two sources that must describe the same items do not."""


class TooFewPairs(DataError):
    """Not enough pairs to fit the method that was asked for."""


class UnreadableFile(DataError):
    """A file is missing, cut short, or of a format that is not understood."""


class EncoderError(CrossfadeError):
    """A model, or the endpoint that serves it, did not embed the items."""


class TrainingDiverged(CrossfadeError, ArithmeticError):
    """A loss became NaN or infinite."""


# --- upgrades ---------------------------------------------------------------------------------


class StoreError(CrossfadeError):
    """A vector store refused or failed an operation."""


class StoreChanged(StoreError):
    """The store is no longer what the plan was made for."""


class OutOfSpace(StoreError, OSError):
    """The disk is full, or would be."""


class UpgradeError(CrossfadeError):
    """An upgrade cannot take the step that was asked for."""


class IllegalTransition(UpgradeError):
    """The step does not follow from the state that the upgrade is in."""


class UpgradeLocked(UpgradeError):
    """Another process is working on this upgrade."""


class PlanRefused(UpgradeError):
    """The evaluation says that this plan makes search worse (``--force REASON`` overrides)."""


class VerificationFailed(UpgradeError):
    """What was written is not what should have been written; cutover stays closed."""
