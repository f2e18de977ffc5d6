"""Images with captions, in the layouts in which such sets are published."""

from crossfade.datasets.image_texts.base import ImageTexts, Left, Skipped
from crossfade.datasets.image_texts.open import open_image_texts

__all__ = ["ImageTexts", "Left", "Skipped", "open_image_texts"]
