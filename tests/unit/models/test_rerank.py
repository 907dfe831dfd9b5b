"""HttpReranker over real HTTP: both shapes, and every fault."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from memos.errors import BadCompletion, InvalidInput, ModelError, ModelRefused, ModelUnavailable, RateLimited
from memos.models.rerank import HttpReranker
from memos.testing_server import Fault, Garbage, ModelServer, rate_limit


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def reranker(server: ModelServer) -> Iterator[HttpReranker]:
    made = HttpReranker(f"{server.url}/rerank", model="bge", api_key="secret-key")
    yield made
    made.close()


def test_scores_come_in_the_order_of_the_texts(server: ModelServer, reranker: HttpReranker) -> None:
    """The endpoint sorts by score; the caller gets one score per text, in its own order."""
    scores = reranker.rerank("boat name", ["a vet", "the boat name", "the boat"])
    assert scores == [0.0, 1.0, 0.5]
    [request] = server.requests
    assert request.body["model"] == "bge" and request.headers["authorization"] == "Bearer secret-key"
    assert reranker.rerank("boat", []) == [] and len(server.requests) == 1


def test_the_other_shape_is_found_out(server: ModelServer, reranker: HttpReranker) -> None:
    """An endpoint that refuses `documents` is asked with `texts`, and its bare list is understood."""
    server.fail(Fault(422, "missing field `texts`"))
    with pytest.raises(ModelRefused):
        reranker.rerank("boat", ["boat"])
    assert [sorted(request.body) for request in server.requests] == [
        ["documents", "model", "query"],
        ["model", "query", "texts"],
    ]
    server.fail(Garbage(json.dumps([{"index": 1, "score": 0.9}, {"index": 0, "score": -3.5}]).encode()))
    assert reranker.rerank("boat", ["a", "b"]) == [-3.5, 0.9]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(500), ModelUnavailable),
        (Fault(401), ModelRefused),
        (rate_limit(5), RateLimited),
        (Garbage(b"<html>"), BadCompletion),
        (Garbage(b'{"results": [{"index": 0, "relevance_score": 0.5}]}'), BadCompletion),
        (Garbage(b'[{"index": 0, "score": NaN}, {"index": 1, "score": 1}]'), BadCompletion),
        (Garbage(b"7"), BadCompletion),
    ],
)
def test_faults_are_typed(
    server: ModelServer, reranker: HttpReranker, fault: Fault | Garbage, kind: type[ModelError]
) -> None:
    """Each fault has its error, and the key is in none of them."""
    server.fail(fault)
    with pytest.raises(kind) as caught:
        reranker.rerank("boat", ["a", "b"])
    assert type(caught.value) is kind and "secret-key" not in str(caught.value)


def test_an_endpoint_that_is_gone_is_unavailable(server: ModelServer, reranker: HttpReranker) -> None:
    """A refused connection is ModelUnavailable."""
    server.close()
    with pytest.raises(ModelUnavailable):
        reranker.rerank("boat", ["a"])


def test_bad_values_are_refused(reranker: HttpReranker) -> None:
    """A URL without a scheme, and more texts than one call takes."""
    with pytest.raises(InvalidInput, match="whole URL"):
        HttpReranker("localhost/rerank")
    with pytest.raises(InvalidInput, match="1001 texts"):
        reranker.rerank("q", ["x"] * 1_001)
