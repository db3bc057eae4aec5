"""Room 3: the last line of the story as one ONNX graph, weights included.

Station: history and knobs -> embedding -> code -> steer -> embedding' -> scores -> top-N.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfsae_fast.errors import require_extra
from cfsae_fast.export import functions
from cfsae_fast.inference import Layer
from cfsae_fast.recommender.fitted import Fitted

IR_VERSION = 9  # onnxruntime 1.17 reads it
DOMAIN_VERSION = 1
DEFAULT_N = 10


class Plan(NamedTuple):
    """What to build: mode residual or reconstruct; with_code adds the code as outputs."""

    mode: str
    opset: int
    with_code: bool


def build(fitted: Fitted, plan: Plan) -> Any:
    """The ModelProto of a fitted recommender, without metadata."""
    onnx = require_extra("onnx", extra="onnx", purpose="export to ONNX")
    graph = _Graph(onnx, fitted, plan)
    graph.assemble()
    helper = onnx.helper
    proto = helper.make_graph(
        graph.nodes, "cfsae", graph.inputs, graph.outputs, list(graph.weights.values())
    )
    return helper.make_model(
        proto,
        functions=_functions(fitted, plan),
        ir_version=IR_VERSION,
        opset_imports=[
            helper.make_opsetid("", plan.opset),
            helper.make_opsetid(functions.DOMAIN, DOMAIN_VERSION),
        ],
        producer_name="cfsae_fast",
    )


def _functions(fitted: Fitted, plan: Plan) -> list[Any]:
    sae, opset = fitted.sae, plan.opset
    return [
        functions.encode_rows(normalize=fitted.cfae.normalize_input, opset=opset),
        functions.topk_encode(
            k=sae.width,
            standardize=sae.standardize,
            d=sae.d,
            threshold=sae.threshold or 0.0,
            opset=opset,
        ),
        functions.steer_decode(
            residual=plan.mode == "residual", gather=4 * sae.width <= sae.n_latents, opset=opset
        ),
        functions.recommend(opset=opset),
    ]


class _Graph:
    """Gathers nodes and weights; an array that two nodes read is stored once."""

    def __init__(self, onnx: Any, fitted: Fitted, plan: Plan) -> None:
        self.onnx, self.fitted, self.plan = onnx, fitted, plan
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.weights: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._kept: list[np.ndarray] = []  # an id is a name only while its array lives

    def assemble(self) -> None:
        self._declare()
        embedding = self._embedding()
        indices, values, mean, std = self._code(embedding)
        steered = self._steered(embedding, [indices, values, mean, std])
        self._top(self._layers(steered, self.fitted.cfae.decoder_layers, "decoder"))
        if self.plan.with_code:
            self._node("Cast", [indices], ["code_indices"], to=7)
            self._node("Identity", [values], ["code_values"])

    def _declare(self) -> None:
        proto, helper = self.onnx.TensorProto, self.onnx.helper
        ids, real = proto.INT64, proto.FLOAT
        self.inputs = [
            helper.make_tensor_value_info("items", ids, ["entries"]),
            helper.make_tensor_value_info("offsets", ids, ["batch_plus_1"]),
        ]
        optional = {
            "knob_latents": (np.empty(0, np.int64), ["knobs"]),
            "knob_weights": (np.empty(0, np.float32), ["knobs"]),
            "knob_kinds": (np.empty(0, np.int64), ["knobs"]),
            "knob_offsets": (np.zeros(2, np.int64), ["knob_rows_plus_1"]),
            "alpha": (np.float32(1), []),
            "deny": (np.empty(0, np.int64), ["denied"]),
            "n": (np.int64(DEFAULT_N), []),
        }
        for name, (
            default,
            shape,
        ) in optional.items():  # an input with an initializer has a default
            kind = real if default.dtype == np.float32 else ids
            self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
            self.weights[name] = self.onnx.numpy_helper.from_array(np.asarray(default), name)
        self.outputs = [
            helper.make_tensor_value_info("ids", ids, ["batch", "n_recommended"]),
            helper.make_tensor_value_info("scores", real, ["batch", "n_recommended"]),
        ]
        if self.plan.with_code:
            shape = ["batch", self.fitted.sae.width]
            self.outputs += [
                helper.make_tensor_value_info("code_indices", ids, shape),
                helper.make_tensor_value_info("code_values", real, shape),
            ]

    def _embedding(self) -> str:
        cfae = self.fitted.cfae
        bias = cfae.first_bias
        if bias is None:
            bias = np.zeros(cfae.item_weight.shape[1], dtype=np.float32)
        item_weight = self._weight("item_weight", cfae.item_weight)
        x = self._op(
            "EncodeRows",
            ["items", "offsets", item_weight, self._weight("first_bias", bias)],
            ["summed"],
            normalize=int(cfae.normalize_input),
        )[0]
        if cfae.first_activation == "tanh":
            x = self._node("Tanh", [x], ["summed_tanh"])
        return self._cold_where_empty(self._layers(x, cfae.encoder_layers, "encoder"))

    def _cold_where_empty(self, embedding: str) -> str:
        upper = self._node("Slice", ["offsets", *self._bounds(1, 2**62)], ["offsets_upper"])
        lower = self._node("Slice", ["offsets", *self._bounds(0, -1)], ["offsets_lower"])
        empty = self._node("Equal", [upper, lower], ["is_empty"])
        column = self._node("Unsqueeze", [empty, self._bounds(1, 1)[0]], ["is_empty_column"])
        cold = self._weight("cold", self.fitted.cold)
        return self._node("Where", [column, cold, embedding], ["embedding"])

    def _code(self, embedding: str) -> list[str]:
        sae = self.fitted.sae
        return self._op(
            "TopkEncode",
            [
                embedding,
                self._weight("encoder", sae.encoder),
                self._weight("encoder_bias", sae.encoder_bias),
                self._weight("sae_bias", sae.bias),
            ],
            ["indices", "values", "mean", "std"],
            k=sae.width,
            standardize=int(sae.standardize),
            threshold=float(sae.threshold or 0.0),
        )

    def _steered(self, embedding: str, code: list[str]) -> str:
        knobs = ["knob_latents", "knob_weights", "knob_kinds", "knob_offsets", "alpha"]
        dictionary = self._weight("dictionary", self.fitted.sae.dictionary)
        return self._op(
            "SteerDecode",
            [embedding, *code, *knobs, dictionary, self._weight("sae_bias", self.fitted.sae.bias)],
            ["steered"],
            residual=int(self.plan.mode == "residual"),
        )[0]

    def _top(self, embedding: str) -> None:
        cfae = self.fitted.cfae
        bias = cfae.item_bias
        bias = np.zeros(cfae.n_items, dtype=np.float32) if bias is None else bias
        weights = [self._weight("item_matrix", cfae.items), self._weight("item_bias", bias)]
        self._op(
            "Recommend",
            [embedding, *weights, "items", "offsets", "deny", "n"],
            ["ids", "scores"],
        )

    def _layers(self, x: str, layers: tuple[Layer, ...], side: str) -> str:
        for at, layer in enumerate(layers):
            name = f"{side}.{at}"
            weight = self._weight(f"{name}.weight", layer.weight)
            bias = self._weight(f"{name}.bias", layer.bias)
            x = self._node("Gemm", [x, weight, bias], [name], transB=1)
            if layer.activation == "tanh":
                x = self._node("Tanh", [x], [f"{name}.tanh"])
        return x

    def _weight(self, name: str, array: np.ndarray) -> str:
        if id(array) in self._names:
            return self._names[id(array)]
        self._names[id(array)] = name
        self._kept.append(array)
        full = np.ascontiguousarray(array, dtype=np.float32)
        self.weights[name] = self.onnx.numpy_helper.from_array(full, name)
        return name

    def _bounds(self, *numbers: int) -> list[str]:
        names = [f"number_{number}" for number in numbers]
        for name, number in zip(names, numbers, strict=True):
            array = np.array([number], dtype=np.int64)
            self.weights.setdefault(name, self.onnx.numpy_helper.from_array(array, name))
        return names

    def _node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        node = self.onnx.helper.make_node(op, inputs, outputs, name=outputs[0], **attributes)
        self.nodes.append(node)
        return outputs[0]

    def _op(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> list[str]:
        node = self.onnx.helper.make_node(
            op, inputs, outputs, name=op, domain=functions.DOMAIN, **attributes
        )
        self.nodes.append(node)
        return outputs
