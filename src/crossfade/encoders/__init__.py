"""Items to vectors: ONNX, sentence-transformers, OpenAI-compatible endpoints, any Python callable."""

from crossfade.encoders.base import Encoder
from crossfade.encoders.callable import CallableEncoder
from crossfade.encoders.open import open_encoder

__all__ = ["CallableEncoder", "Encoder", "open_encoder"]
