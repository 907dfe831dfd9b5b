"""Write `src/memos/models/minilm.onnx`: the computation of all-MiniLM-L6-v2 without its weights.

    pip install onnx && python tools/build_minilm_graph.py

The graph is a BERT encoder (Devlin et al. 2019, section 3; 6 layers, width 384, 12 heads) with mean
pooling and scaling to length 1, written out operator by operator. Every weight is an external
initializer under the name and shape that it has in `model.safetensors`, so that the embedder can hand
over the mapped file without copying or transposing it: matrices stay (out, in) and are used through
`Gemm(transB=1)`. `onnx` is needed by this script only, never at run time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parent.parent / "src" / "memos" / "models" / "minilm.onnx"

LAYERS = 6
WIDTH = 384
HEADS = 12
HEAD_WIDTH = WIDTH // HEADS
INNER_WIDTH = 4 * WIDTH
VOCABULARY = 30_522
POSITIONS = 512
LAYER_NORM_EPSILON = 1e-12

# `Gelu` is a standard operator since opset 20; IR version 9 keeps older runtimes able to read the file.
OPSET = 20
IR_VERSION = 9


class GraphWriter:
    """Collects nodes, weights and small constants; each operator returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, *shape: int) -> str:
        """Declare a weight whose content is handed over when the session is made."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.safetensors")
        self.weights.append(tensor)
        return name

    def constant(self, value: list[int] | float) -> str:
        """A small constant, stored inside the graph."""
        kind = np.int64 if isinstance(value, list) else np.float32
        name = f"const:{value}"
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Append one operator."""
        output = output or f"{kind}:{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def dense(self, x: str, name: str, *, width_in: int, width_out: int) -> str:
        """`x @ weight.T + bias` for rows `(n, width_in)`."""
        weight = self.weight(f"{name}.weight", width_out, width_in)
        return self.op("Gemm", x, weight, self.weight(f"{name}.bias", width_out), transB=1)

    def layer_norm(self, x: str, name: str) -> str:
        scale = self.weight(f"{name}.weight", WIDTH)
        shift = self.weight(f"{name}.bias", WIDTH)
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=LAYER_NORM_EPSILON)


def embeddings(g: GraphWriter) -> str:
    """Rows `(batch * length, 384)` of word, position and token type (always 0), normalised."""
    word_table = g.weight("embeddings.word_embeddings.weight", VOCABULARY, WIDTH)
    position_table = g.weight("embeddings.position_embeddings.weight", POSITIONS, WIDTH)
    type_table = g.weight("embeddings.token_type_embeddings.weight", 2, WIDTH)
    words = g.op("Gather", word_table, "input_ids")
    length = g.op("Shape", "input_ids", start=1, end=2)
    positions = g.op("Slice", position_table, g.constant([0]), length, g.constant([0]))
    first_type = g.op("Slice", type_table, g.constant([0]), g.constant([1]), g.constant([0]))
    summed = g.op("Add", words, g.op("Add", positions, first_type))
    rows = g.op("Reshape", summed, g.constant([-1, WIDTH]))
    return g.layer_norm(rows, "embeddings.LayerNorm")


def heads(g: GraphWriter, x: str, shape: str, *, order: list[int]) -> str:
    """`(batch * length, 384)` to `(batch, heads, …)` in the given order of axes."""
    return g.op("Transpose", g.op("Reshape", x, shape), perm=order)


def attention(g: GraphWriter, x: str, name: str, *, head_shape: str, mask: str) -> str:
    """Scaled dot-product self-attention with residual and layer norm."""
    query = g.dense(x, f"{name}.self.query", width_in=WIDTH, width_out=WIDTH)
    key = g.dense(x, f"{name}.self.key", width_in=WIDTH, width_out=WIDTH)
    value = g.dense(x, f"{name}.self.value", width_in=WIDTH, width_out=WIDTH)
    dots = g.op(
        "MatMul",
        heads(g, query, head_shape, order=[0, 2, 1, 3]),
        heads(g, key, head_shape, order=[0, 2, 3, 1]),
    )
    scaled = g.op("Mul", dots, g.constant(HEAD_WIDTH**-0.5))
    shares = g.op("Softmax", g.op("Add", scaled, mask), axis=-1)
    mixed = g.op("MatMul", shares, heads(g, value, head_shape, order=[0, 2, 1, 3]))
    rows = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.constant([-1, WIDTH]))
    projected = g.dense(rows, f"{name}.output.dense", width_in=WIDTH, width_out=WIDTH)
    return g.layer_norm(g.op("Add", projected, x), f"{name}.output.LayerNorm")


def feed_forward(g: GraphWriter, x: str, name: str) -> str:
    """Two dense layers with the exact (erf) GELU between them, residual and layer norm."""
    inner = g.dense(x, f"{name}.intermediate.dense", width_in=WIDTH, width_out=INNER_WIDTH)
    outer = g.dense(g.op("Gelu", inner), f"{name}.output.dense", width_in=INNER_WIDTH, width_out=WIDTH)
    return g.layer_norm(g.op("Add", outer, x), f"{name}.output.LayerNorm")


def pool(g: GraphWriter, x: str, *, batch_shape: str, mask: str) -> None:
    """Mean over the real tokens, scaled to length 1."""
    tokens = g.op("Reshape", x, batch_shape)
    real = g.op("Unsqueeze", mask, g.constant([2]))
    total = g.op("ReduceSum", g.op("Mul", tokens, real), g.constant([1]), keepdims=0)
    mean = g.op("Div", total, g.op("ReduceSum", mask, g.constant([1]), keepdims=1))
    length = g.op("Max", g.op("ReduceL2", mean, g.constant([1]), keepdims=1), g.constant(1e-12))
    g.op("Div", mean, length, output="vectors")


def build() -> onnx.ModelProto:
    """`input_ids`, `attention_mask`: int64 `(batch, length)` -> `vectors`: float32 `(batch, 384)`."""
    g = GraphWriter()
    real = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    size = g.op("Shape", "input_ids")
    head_shape = g.op("Concat", size, g.constant([HEADS, HEAD_WIDTH]), axis=0)
    batch_shape = g.op("Concat", size, g.constant([WIDTH]), axis=0)
    hidden = g.op("Mul", g.op("Sub", real, g.constant(1.0)), g.constant(1e9))
    mask = g.op("Unsqueeze", hidden, g.constant([1, 2]))
    x = embeddings(g)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        x = attention(g, x, f"{name}.attention", head_shape=head_shape, mask=mask)
        x = feed_forward(g, x, name)
    pool(g, x, batch_shape=batch_shape, mask=real)
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(
        g.nodes, "all-MiniLM-L6-v2", ids, [vectors], [*g.weights, *g.constants.values()]
    )
    return helper.make_model(
        graph,
        producer_name="memscheduler",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def main() -> None:
    TARGET.write_bytes(build().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
