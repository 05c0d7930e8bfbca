"""Small ONNX files made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def network(
    path: Path, *, dims: Sequence[int | str], nodes: list[tuple[str, list[str], str, dict[str, object]]], **weights: np.ndarray
) -> Path:
    """A graph with one input ``x`` of ``dims``, and as output what the last node gives."""
    made = [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes]
    graph = helper.make_graph(
        made,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def image_net(path: Path, *, batch: int | str = "n", side: int = 16, nhwc: bool = False) -> Path:
    """Convolution, ReLU, mean, linear layer, softmax: ``map`` (n, 6, H, W), ``vector`` (n, 6), ``classes`` (n, 4) among its tensors."""
    random = np.random.default_rng(0)
    dims = [batch, side, side, 3] if nhwc else [batch, 3, side, side]
    turned = [("Transpose", ["x"], "turned", {"perm": [0, 3, 1, 2]})] if nhwc else []
    nodes = [
        *turned,
        ("Conv", ["turned" if nhwc else "x", "kernel"], "conv", {"strides": [2, 2]}),
        ("Relu", ["conv"], "map", {}),
        ("GlobalAveragePool", ["map"], "pooled", {}),
        ("Flatten", ["pooled"], "vector", {}),
        ("Gemm", ["vector", "weight", "bias"], "logits", {}),
        ("Softmax", ["logits"], "classes", {}),
    ]
    kernel = random.standard_normal((6, 3, 3, 3)).astype(np.float32)
    weight, bias = random.standard_normal((6, 4)).astype(np.float32), np.zeros(4, np.float32)
    return network(path, dims=dims, nodes=nodes, kernel=kernel, weight=weight, bias=bias)


def frames_net(path: Path) -> Path:
    """Sound (1, samples) as frames (1, N, 4): means of squares of 4 parts of 200 samples, every 100."""
    parts = np.repeat(np.eye(4, dtype=np.float32), 50, axis=1)[:, None] / 50  # (4, 1, 200)
    nodes = [
        ("Mul", ["x", "x"], "squares", {}),
        ("Unsqueeze", ["squares", "one"], "channel", {}),
        ("Conv", ["channel", "parts"], "bands", {"strides": [100]}),
        ("Transpose", ["bands"], "frames", {"perm": [0, 2, 1]}),
    ]
    return network(path, dims=["b", "samples"], nodes=nodes, parts=parts, one=np.array([1]))


def patch_net(path: Path) -> Path:
    """Patches (n, 8, 4, 1) of frames as (n, 1, 1, 5)."""
    weight = np.random.default_rng(1).standard_normal((32, 5)).astype(np.float32)
    nodes = [
        ("Reshape", ["x", "flat"], "rows", {}),
        ("MatMul", ["rows", "weight"], "features", {}),
        ("Reshape", ["features", "cell"], "embedding", {}),
    ]
    shapes = {"flat": np.array([-1, 32]), "cell": np.array([-1, 1, 1, 5])}
    return network(path, dims=["n", 8, 4, 1], nodes=nodes, weight=weight, **shapes)


def wave_net(path: Path) -> Path:
    """A wave (n, 800) as a sequence (n, 8, 3)."""
    nodes = [
        ("Unsqueeze", ["x", "one"], "channel", {}),
        ("Conv", ["channel", "kernel"], "conv", {"strides": [100]}),
        ("Abs", ["conv"], "positive", {}),
        ("Transpose", ["positive"], "sequence", {"perm": [0, 2, 1]}),
    ]
    kernel = np.random.default_rng(2).standard_normal((3, 1, 100)).astype(np.float32)
    return network(path, dims=["n", 800], nodes=nodes, kernel=kernel, one=np.array([1]))
