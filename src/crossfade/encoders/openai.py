"""Any endpoint that speaks the OpenAI embeddings protocol."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfade.encoders.base import Encoder, as_vectors, require_texts
from crossfade.errors import EncoderError, UsageError
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

DEFAULT_URL = "https://api.openai.com/v1"
RETRIED = (408, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0


class OpenAIEncoder(Encoder):
    """Texts through ``POST URL/embeddings``.

    The key is read from the environment at each request, is sent to that URL only (redirects are not
    followed), and stands in no message.

    Args:
        model: name of the model at the endpoint.
        url: base URL, e.g. ``http://127.0.0.1:8000/v1``.
        space: space of the vectors; None means cosine, with the dimension that the endpoint returns. Its
            prompt is put before every text.
        dimensions: ask the endpoint for shortened vectors.
        key_variable: environment variable with the key; unset means none is sent.
        batch: texts per request.
        timeout: seconds that a request may take.
        retries: further attempts after 408, 429, 5xx and broken connections.
        wait: seconds before the first of them; doubled each time, unless the endpoint says how long.

    Raises:
        UsageError: a URL that is not http(s), or has a user or password in it.
    """

    def __init__(
        self,
        model: str,
        url: str = DEFAULT_URL,
        *,
        space: Space | None = None,
        dimensions: int | None = None,
        key_variable: str = "OPENAI_API_KEY",
        batch: int = 128,
        timeout: float = 60.0,
        retries: int = 5,
        wait: float = 0.5,
    ) -> None:
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        self.model, self.url = model, _endpoint(url)
        self._space, self._dimensions = space, dimensions
        self._key_variable, self._batch = key_variable, batch
        self._timeout, self._retries, self._wait = timeout, retries, wait
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __repr__(self) -> str:
        return f"OpenAIEncoder({self.model!r}, {self.url!r})"

    @property
    def space(self) -> Space:
        if self._space is None:
            self._space = Space(self.model, dimension=len(self._request(["dimension"])[0]))
        return self._space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed texts in batches, each with the space's prompt before it.

        Raises:
            UsageError: an item is no string.
            EncoderError: the endpoint refuses, cannot be reached, or answers something else.
            DimensionMismatch: its vectors are of another dimension than the space.
        """
        texts = [self.space.prompt + text for text in require_texts(items, self.model)]
        parts = [np.empty((0, self.space.dimension), dtype=np.float32)]
        for start in range(0, len(texts), self._batch):
            chunk = texts[start : start + self._batch]
            parts.append(as_vectors(self._request(chunk), len(chunk), self.space))
        return np.concatenate(parts)

    def _request(self, texts: list[str]) -> list[list[float]]:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        return _read_vectors(self._post(json.dumps(body).encode()), len(texts), self.url)

    def _post(self, body: bytes) -> bytes:
        wait = self._wait
        for attempt in range(self._retries + 1):
            try:
                return self._post_once(body)
            except _TryAgainError as problem:
                if attempt == self._retries:
                    raise EncoderError(
                        f"{self.url}: {problem} after {attempt + 1} attempts; "
                        "is the endpoint up, and may it be asked this often?"
                    ) from None
                time.sleep(min(problem.wait if problem.wait is not None else wait, LONGEST_WAIT))
                wait *= 2
        raise AssertionError("unreachable")

    def _post_once(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.url, body, self._headers())
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except urllib.error.URLError as error:
            raise _TryAgainError(f"cannot be reached ({error.reason})") from None
        except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
            raise _TryAgainError(f"broke off ({type(error).__name__})") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "crossfade"}
        key = os.environ.get(self._key_variable)
        return {**headers, "Authorization": f"Bearer {key}"} if key else headers

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        if error.code in RETRIED:
            return _TryAgainError(f"answered {error.code}", _retry_after(error))
        if error.code in (401, 403):
            return EncoderError(
                f"{self.url}: access denied ({error.code}); put a valid key into the environment variable "
                f"{self._key_variable}"
            )
        if 300 <= error.code < 400:
            return EncoderError(f"{self.url}: redirects elsewhere ({error.code}); give the final URL")
        return EncoderError(
            f"{self.url}: answered {error.code}: {self._reason(error)}; check the model and URL"
        )

    def _reason(self, error: urllib.error.HTTPError) -> str:
        """What the endpoint says, on one line, without the key should it repeat it."""
        text = " ".join(error.read(2000).decode(errors="replace").split())
        key = os.environ.get(self._key_variable)
        return (text.replace(key, "[key]") if key else text)[:300] or "nothing more"


class _TryAgainError(Exception):
    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Following would carry the key to another address."""


def _endpoint(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"an embeddings endpoint is an http(s) URL, e.g. {DEFAULT_URL}; got another form")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "leave user, password and query out of the URL; put the key into the environment variable"
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/embeddings"):
        path = f"{path or '/v1'}/embeddings"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _read_vectors(answer: bytes, count: int, url: str) -> list[list[float]]:
    try:
        entries = json.loads(answer)["data"]
        by_index = {int(entry["index"]): list(map(float, entry["embedding"])) for entry in entries}
        return [by_index[position] for position in range(count)]
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{url}: answered something other than {count} embeddings ({type(error).__name__}: {error}); "
            "does it speak the OpenAI embeddings protocol?"
        ) from None
