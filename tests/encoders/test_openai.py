"""Endpoints of the OpenAI embeddings protocol, played by a server on this machine."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from crossfade.encoders import openai
from crossfade.encoders.openai import OpenAIEncoder
from crossfade.errors import CrossfadeError, DimensionMismatch, EncoderError, UsageError
from crossfade.spaces import Space

KEY = "sk-very-secret-0123456789"
SPACE = Space("tiny", 3, prompt="query: ")
Answer = tuple[int, dict[str, str], bytes]


def vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()) % 97), 1.0]


def embed(body: dict[str, Any]) -> Answer:
    data = [{"index": index, "embedding": vector(text)} for index, text in enumerate(body["input"])]
    return 200, {}, json.dumps({"data": data[::-1]}).encode()


class Endpoint:
    """A server whose answers a test decides."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answer: Callable[[dict[str, Any]], Answer | None] = embed
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append((self.path, dict(self.headers), body))
                answer = endpoint.answer(body)
                if answer is None:
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(openai.time, "sleep", waited.append)
    return waited


def test_texts_are_embedded_in_batches_with_the_prompt(endpoint: Endpoint) -> None:
    texts = [f"text {'x' * number}" for number in range(10)]

    vectors = OpenAIEncoder("tiny", endpoint.url, space=SPACE, batch=4).encode(texts)

    np.testing.assert_array_equal(vectors, np.float32([vector(f"query: {text}") for text in texts]))
    assert vectors.dtype == np.float32
    assert [len(body["input"]) for _, _, body in endpoint.requests] == [4, 4, 2]
    path, headers, body = endpoint.requests[0]
    assert (path, body["model"]) == ("/v1/embeddings", "tiny")
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert "dimensions" not in body


def test_dimension_comes_from_the_endpoint_where_no_space_is_given(endpoint: Endpoint) -> None:
    assert OpenAIEncoder("tiny", endpoint.url).space == Space("tiny", 3)


def test_shortened_vectors_are_asked_for(endpoint: Endpoint) -> None:
    OpenAIEncoder("tiny", endpoint.url, space=SPACE, dimensions=3).encode(["a"])
    assert endpoint.requests[0][2]["dimensions"] == 3


def test_no_items_no_request(endpoint: Endpoint) -> None:
    assert OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode([]).shape == (0, 3)
    assert endpoint.requests == []


def test_no_key_no_header(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])
    assert "Authorization" not in endpoint.requests[0][1]


def test_the_key_may_be_in_another_variable(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    OpenAIEncoder("tiny", endpoint.url, space=SPACE, key_variable="OTHER_KEY").encode(["a"])
    assert endpoint.requests[0][1]["Authorization"] == "Bearer other"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_tried_again(endpoint: Endpoint, waits: list[float], status: int) -> None:
    def fail_twice(body: dict[str, Any]) -> Answer:
        return embed(body) if len(endpoint.requests) > 2 else (status, {}, b"{}")

    endpoint.answer = fail_twice
    assert len(OpenAIEncoder("tiny", endpoint.url, space=SPACE, wait=0.5).encode(["a"])) == 1
    assert len(endpoint.requests) == 3
    assert waits == [0.5, 1.0]


def test_the_endpoint_says_how_long_to_wait_within_reason(endpoint: Endpoint, waits: list[float]) -> None:
    after = iter(["7", "86400"])

    def busy(body: dict[str, Any]) -> Answer:
        return (429, {"Retry-After": next(after)}, b"") if len(endpoint.requests) < 3 else embed(body)

    endpoint.answer = busy
    OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])
    assert waits == [7.0, 60.0]


def test_a_broken_connection_is_tried_again(endpoint: Endpoint, waits: list[float]) -> None:
    endpoint.answer = lambda body: embed(body) if len(endpoint.requests) > 1 else None
    OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])
    assert len(waits) == 1


def test_it_gives_up(endpoint: Endpoint, waits: list[float]) -> None:
    endpoint.answer = lambda _: (503, {}, b"")
    with pytest.raises(EncoderError, match="answered 503 after 4 attempts"):
        OpenAIEncoder("tiny", endpoint.url, space=SPACE, retries=3).encode(["a"])
    assert len(waits) == 3


def test_timeout(endpoint: Endpoint, waits: list[float]) -> None:
    release = threading.Event()

    def hang(_: dict[str, Any]) -> None:
        release.wait(10)

    endpoint.answer = hang
    with pytest.raises(EncoderError, match="after 2 attempts"):
        OpenAIEncoder("tiny", endpoint.url, space=SPACE, timeout=0.1, retries=1).encode(["a"])
    release.set()


def test_nobody_listens(endpoint: Endpoint, waits: list[float]) -> None:
    with pytest.raises(EncoderError, match="cannot be reached"):
        OpenAIEncoder("tiny", "http://127.0.0.1:9/v1", space=SPACE, retries=1).encode(["a"])


def test_a_client_error_is_not_tried_again(endpoint: Endpoint, waits: list[float]) -> None:
    endpoint.answer = lambda _: (404, {}, b'{"error": "no such model"}')
    with pytest.raises(EncoderError, match=r"answered 404: .*no such model.*check the model and URL"):
        OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])
    assert (len(endpoint.requests), waits) == (1, [])


def test_another_dimension(endpoint: Endpoint) -> None:
    with pytest.raises(DimensionMismatch, match=r"returned vectors of 3 dimensions, its space .* says 4"):
        OpenAIEncoder("tiny", endpoint.url, space=Space("tiny", 4)).encode(["a"])


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b'{"data": []}', b'{"data": [{"index": 1, "embedding": [1]}]}', b'{"data": [3]}'],
)
def test_something_else_than_embeddings(endpoint: Endpoint, content: bytes) -> None:
    endpoint.answer = lambda _: (200, {}, content)
    with pytest.raises(EncoderError, match="something other than 1 embeddings"):
        OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])


def test_redirects_do_not_carry_the_key_away(endpoint: Endpoint) -> None:
    other = Endpoint()
    endpoint.answer = lambda _: (302, {"Location": f"{other.url}/embeddings"}, b"")
    try:
        with pytest.raises(EncoderError, match=r"redirects elsewhere \(302\); give the final URL"):
            OpenAIEncoder("tiny", endpoint.url, space=SPACE).encode(["a"])
        assert other.requests == []
    finally:
        other.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 200])
def test_the_key_stands_in_no_message(
    endpoint: Endpoint, waits: list[float], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.answer = lambda _: (status, {}, f'{{"error": "bad key {KEY}"}}'.encode())
    encoder = OpenAIEncoder("tiny", endpoint.url, space=SPACE, retries=1)

    with pytest.raises(CrossfadeError) as caught:
        encoder.encode(["a"])

    seen = [str(caught.value), repr(caught.value), repr(encoder), str(vars(encoder)), caplog.text]
    assert not [text for text in seen if KEY in text]
    if status == 401:
        assert "environment variable OPENAI_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/v1", "an embeddings endpoint is an http"),
        ("host/v1", "an embeddings endpoint is an http"),
        ("https://user:hidden@host/v1", "leave user, password and query out"),
        ("https://host/v1?key=hidden", "leave user, password and query out"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        OpenAIEncoder("m", url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("items", "message"), [("text", "got a single string"), (["a", 3], "item 1 is int")])
def test_items_must_be_texts(items: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OpenAIEncoder("m", space=SPACE).encode(items)
