"""The description of the API (OpenAPI) holds: requests made from it never break the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tools.api_report import tried

from memos.api.app import create_app
from memos.runtime import Runtime, build

from .conftest import settings_in

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    home: Path = tmp_path_factory.mktemp("described")
    with build(settings_in(home), start=True) as built:
        yield built


@pytest.fixture(scope="module")
def described(served: Runtime) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(served))


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_no_request_breaks_the_server(
    described: schemathesis.BaseSchema, mode: schemathesis.GenerationMode
) -> None:
    """Whatever fits the description, or just does not, is answered as described and never with a fault."""
    tried = 0
    # Waiting for an idle queue would wait, a stream of logs never ends, the metrics have no form of ours.
    for found in described.exclude(path_regex="/scheduler/wait|/logs/stream|/metrics").get_all_operations():
        operation = found.ok()

        @SETTINGS
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            continue  # nothing about it can be wrong: it takes no input
        tried += 1
    assert tried >= 20


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_report_finds_no_fault(described: schemathesis.BaseSchema) -> None:
    """The longer run, by other seeds, as the table in benchmarks/README.md is made."""
    for seed in (2, 3):
        lines = tried(described, examples=100, seed=seed)
        assert len(lines) >= 20
        assert {line.name: line.faults[:1] for line in lines if line.faults} == {}


def test_every_request_has_an_example(described: schemathesis.BaseSchema) -> None:
    """Each body that the API takes shows one."""
    schemas = described.raw_schema["components"]["schemas"]
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for path in described.raw_schema["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    named = {
        one["$ref"].rpartition("/")[2]
        for body in bodies
        for one in ([body] if "$ref" in body else body.get("anyOf", []))
        if "$ref" in one
    }
    assert named and [name for name in sorted(named) if not schemas[name].get("examples")] == []
