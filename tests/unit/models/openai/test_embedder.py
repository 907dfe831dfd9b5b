"""OpenAIEmbedder over real HTTP: vectors, batches, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from memos.errors import BadCompletion, InvalidInput, ModelError, ModelRefused, ModelUnavailable, RateLimited
from memos.models.openai.embedder import OpenAIEmbedder
from memos.testing_server import Fault, Garbage, ModelServer, rate_limit


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(dim=16) as running:
        yield running


Make = Callable[..., OpenAIEmbedder]


@pytest.fixture
def embedder() -> Iterator[Make]:
    """Makes embedders and closes them after the test."""
    made: list[OpenAIEmbedder] = []

    def make(server: ModelServer, batch_max: int = 64) -> OpenAIEmbedder:
        made.append(OpenAIEmbedder("nomic", base_url=server.url, api_key="k", batch_max=batch_max))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_rows_are_unit_vectors_in_the_order_of_the_texts(server: ModelServer, embedder: Make) -> None:
    """Float32, length 1, same text same row; the dimension is the endpoint's, none gives (0, dim)."""
    model = embedder(server)
    rows = model.embed(["the boat Petrel", "a vet", "the boat Petrel", ""])
    assert rows.shape == (4, 16) and rows.dtype == np.float32 and model.dim == 16
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0)
    assert (rows[0] == rows[2]).all() and not (rows[0] == rows[1]).all()
    assert model.embed([]).shape == (0, 16)


def test_the_fingerprint_names_host_model_and_dimension(server: ModelServer, embedder: Make) -> None:
    """Another model, host or dimension is another fingerprint."""
    assert embedder(server).fingerprint == "openai:127.0.0.1:nomic:16"


def test_batches_are_bounded(server: ModelServer, embedder: Make) -> None:
    """No request holds more than `batch_max` texts, and the rows do not depend on it."""
    texts = [f"text {n}" for n in range(7)]
    whole, cut = embedder(server).embed(texts), embedder(server, batch_max=3).embed(texts)
    assert (whole == cut).all()
    sizes = [len(request.body["input"]) for request in server.requests]
    assert sizes == [1, 7, 1, 3, 3, 1]


def test_long_and_broken_texts_are_sent_as_the_endpoint_takes_them(
    server: ModelServer, embedder: Make
) -> None:
    """A text is cut at the limit, an empty one is a blank, a lone surrogate a question mark."""
    embedder(server).embed(["x" * 20_000, "", "a\ud800b"])
    long, empty, broken = server.requests[-1].body["input"]
    assert len(long) == 8_000 and empty == " " and broken == "a?b"


def test_rows_are_put_in_the_order_of_their_index(server: ModelServer, embedder: Make) -> None:
    """An endpoint may answer out of order."""
    model = embedder(server)
    rows = [{"index": 1, "embedding": [0.0] * 15 + [2.0]}, {"index": 0, "embedding": [3.0] + [0.0] * 15}]
    server.fail(Garbage(json.dumps({"data": rows}).encode()))
    assert model.embed(["a", "b"])[:, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b'{"data": []}',
        b'{"data": [{"embedding": "AAAA"}]}',
        b'{"data": [{"embedding": [1, "x"]}]}',
        b'{"data": [{"embedding": [[1]]}]}',
        b'{"data": [{"embedding": []}]}',
        b'{"data": [{"embedding": [1, 2, 3]}]}',
        b'{"data": [{"index": 5, "embedding": [1]}]}',
        json.dumps({"data": [{"embedding": [0.0] * 16}]}).encode(),
        json.dumps({"data": [{"embedding": [float("nan")] * 16}]}).encode(),
        json.dumps({"data": [{"embedding": [1e400] * 16}]}).encode(),
    ],
)
def test_what_is_no_vector_is_refused(server: ModelServer, embedder: Make, body: bytes) -> None:
    """Zero, infinite, missing, misshapen or of another dimension than at the start: BadCompletion."""
    model = embedder(server)
    server.fail(Garbage(body))
    with pytest.raises(BadCompletion):
        model.embed(["a"])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault(500), ModelUnavailable), (Fault(401), ModelRefused), (rate_limit(4), RateLimited)],
)
def test_faults_are_typed_at_the_start_and_later(
    server: ModelServer, embedder: Make, fault: Fault, kind: type[ModelError]
) -> None:
    """The probe and a later call raise the same errors."""
    model = embedder(server)
    server.fail(fault)
    with pytest.raises(kind):
        model.embed(["a"])
    with pytest.raises(kind):
        embedder(server)


def test_bad_calls_are_refused(server: ModelServer, embedder: Make) -> None:
    """One text instead of a list, no model, no batch."""
    with pytest.raises(InvalidInput, match="sequence of texts"):
        embedder(server).embed("text")
    with pytest.raises(InvalidInput, match="by name"):
        OpenAIEmbedder("", base_url=server.url)
    with pytest.raises(InvalidInput, match="batch_max"):
        embedder(server, batch_max=0)
