"""Write `tests/unit/models/overlap.onnx`: a cross-encoder that counts common tokens, for tests.

    pip install onnx && python tools/build_overlap_graph.py

Its inputs are those of a BERT cross-encoder. The score of a pair is the number of (query token, text token)
pairs that are equal, special tokens (ids below 5) left out, as `(n, 1)` logits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).resolve().parents[1] / "tests" / "unit" / "models" / "overlap.onnx"
SPECIAL = 5
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def main() -> None:
    """Build, check and write the graph."""
    constants = [
        numpy_helper.from_array(np.array([SPECIAL - 1], np.int64), "last_special"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
    ]
    nodes = [
        helper.make_node("Greater", ["input_ids", "last_special"], ["plain"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.BOOL),
        helper.make_node("Cast", ["token_type_ids"], ["second"], to=TensorProto.BOOL),
        helper.make_node("Not", ["second"], ["first"]),
        helper.make_node("And", ["plain", "there"], ["counts"]),
        helper.make_node("And", ["counts", "first"], ["of_query"]),
        helper.make_node("And", ["counts", "second"], ["of_text"]),
        helper.make_node("Unsqueeze", ["input_ids", "two"], ["rows"]),
        helper.make_node("Unsqueeze", ["input_ids", "one"], ["columns"]),
        helper.make_node("Equal", ["rows", "columns"], ["same"]),
        helper.make_node("Unsqueeze", ["of_query", "two"], ["query_rows"]),
        helper.make_node("Unsqueeze", ["of_text", "one"], ["text_columns"]),
        helper.make_node("And", ["same", "query_rows"], ["same_of_query"]),
        helper.make_node("And", ["same_of_query", "text_columns"], ["common"]),
        helper.make_node("Cast", ["common"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "axes"], ["sums"], keepdims=0),
        helper.make_node("Reshape", ["sums", "column"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "overlap",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in NAMES],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    TARGET.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
