"""Room 3: the last line of the story as one ONNX graph, weights included.

Station: history and knobs -> embedding -> code -> steer -> embedding' -> scores -> top-N.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfsae_fast.errors import require_extra
from cfsae_fast.export import folded, functions, steering
from cfsae_fast.export.precision import Stored, lower
from cfsae_fast.export.weights import empty_tensor
from cfsae_fast.inference import FoldedTables, Layer
from cfsae_fast.ops.folded import FoldedSide
from cfsae_fast.recommender.fitted import Fitted

IR_VERSION = 9  # onnxruntime 1.17 reads it
DOMAIN_VERSION = 1  # of what the nodes mean; csrc/onnxruntime/declare.h has it too
DEFAULT_N = 10
KNOBS = ["knob_latents", "knob_weights", "knob_kinds", "knob_offsets", "alpha"]
TOP = ["ids", "scores"]


class Plan(NamedTuple):
    """What to build: mode residual or reconstruct; with_code adds the code as outputs; folded:
    tables stand in for the linear ends; precision: of the file's matrices; defaults: whether inputs
    have any."""

    mode: str
    opset: int
    with_code: bool
    folded: bool = False
    precision: str = "fp32"
    defaults: bool = True


class Built(NamedTuple):
    """A ModelProto without metadata, and by name the arrays that its tensors do not hold yet."""

    model: Any
    arrays: dict[str, np.ndarray]


def build(fitted: Fitted, plan: Plan) -> Built:
    """The graph of a fitted recommender."""
    onnx = require_extra("onnx", extra="onnx", purpose="export to ONNX")
    fitted, stored = lower(fitted, plan.precision)
    graph = _Graph(onnx, fitted, plan, stored)
    graph.assemble()
    helper = onnx.helper
    proto = helper.make_graph(
        graph.nodes, "cfsae", graph.inputs, graph.outputs, list(graph.weights.values())
    )
    model = helper.make_model(
        proto,
        functions=_functions(fitted, plan, graph.ops),
        ir_version=IR_VERSION,
        opset_imports=[
            helper.make_opsetid("", plan.opset),
            helper.make_opsetid(functions.DOMAIN, DOMAIN_VERSION),
        ],
        producer_name="cfsae_fast",
    )
    return Built(model, graph.arrays)


def _functions(fitted: Fitted, plan: Plan, ops: set[str]) -> list[Any]:
    """What the nodes of `ops` mean."""
    sae, opset = fitted.sae, plan.opset
    gather = 4 * sae.width <= sae.n_latents
    code = {
        "k": sae.width,
        "standardize": sae.standardize,
        "d": sae.d,
        "threshold": sae.threshold or 0.0,
        "opset": opset,
    }
    makers = {
        "EncodeRows": lambda: functions.encode_rows(
            normalize=fitted.cfae.normalize_input, opset=opset
        ),
        "TopkEncode": lambda: functions.topk_encode(**code),
        "FoldedTopkEncode": lambda: folded.folded_topk_encode(**code),
        "SteerDecode": lambda: steering.steer_decode(
            residual=plan.mode == "residual", gather=gather, opset=opset
        ),
        "Steer": lambda: steering.steer(opset=opset),
        "SparseDecode": lambda: steering.sparse_decode(gather=gather, opset=opset),
        "Recommend": lambda: functions.recommend(opset=opset),
        "FoldedRecommend": lambda: folded.folded_recommend(opset=opset),
    }
    return [make() for name, make in makers.items() if name in ops]


class _Graph:
    """Gathers nodes and weights; an array that two nodes read is stored once."""

    def __init__(self, onnx: Any, fitted: Fitted, plan: Plan, stored: dict[int, Stored]) -> None:
        self.onnx, self.fitted, self.plan, self.stored = onnx, fitted, plan, stored
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.weights: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.ops: set[str] = set()
        self._names: dict[int, str] = {}
        self._kept: list[np.ndarray] = []  # an id is a name only while its array lives

    def assemble(self) -> None:
        self._declare()
        tables = self._tables()
        embedding = self._embedding()
        code, stats = self._code(embedding, tables)
        if tables is not None and tables.decode_side is not None:
            self._top_of_code(code, stats, tables.decode_side)
        else:
            steered = self._steered(embedding, [*code, *stats])
            layers = self.fitted.cfae.decoder_layers
            self._op("Recommend", self._asked(self._layers(steered, layers, "decoder")), TOP)
        if self.plan.with_code:
            self._node("Cast", [code[0]], ["code_indices"], to=7)
            self._node("Identity", [code[1]], ["code_values"])

    def _tables(self) -> FoldedTables | None:
        if not self.plan.folded:
            return None
        fitted = self.fitted
        tables = fitted.folded or FoldedTables.build(fitted.cfae, fitted.sae)
        few = folded.leaves_out(fitted.sae.width, fitted.sae.n_latents)
        encode = tables.encode_side if few else None
        decode = tables.decode_side if few and self.plan.mode == "reconstruct" else None
        if encode is None and decode is None:
            raise ValueError(
                f"folded must be False for {fitted.cfae.kind} with codes of {fitted.sae.width} of "
                f"{fitted.sae.n_latents} latents in mode {self.plan.mode}, got True; a graph takes "
                "no table of it, the dense graph serves it"
            )
        return FoldedTables(encode, decode)

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
            if self.plan.defaults:
                default = np.asarray(default)
                self.weights[name] = self.onnx.numpy_helper.from_array(default, name)
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

    def _code(self, embedding: str, tables: FoldedTables | None) -> tuple[list[str], list[str]]:
        """Names of indices and values, and of mean and std."""
        sae = self.fitted.sae
        inputs = [
            embedding,
            self._weight("encoder", sae.encoder),
            self._weight("encoder_bias", sae.encoder_bias),
            self._weight("sae_bias", sae.bias),
        ]
        op = "TopkEncode"
        if tables is not None and tables.encode_side is not None:
            op = "FoldedTopkEncode"
            inputs = ["items", "offsets", *inputs, *self._table("encode", tables.encode_side)]
        names = self._op(
            op,
            inputs,
            ["indices", "values", "mean", "std"],
            k=sae.width,
            standardize=int(sae.standardize),
            threshold=float(sae.threshold or 0.0),
        )
        return names[:2], names[2:]

    def _steered(self, embedding: str, code: list[str]) -> str:
        dictionary = self._weight("dictionary", self.fitted.sae.dictionary)
        bias = self._weight("sae_bias", self.fitted.sae.bias)
        return self._op(
            "SteerDecode",
            [embedding, *code, *KNOBS, dictionary, bias],
            ["steered"],
            residual=int(self.plan.mode == "residual"),
        )[0]

    def _top_of_code(self, code: list[str], stats: list[str], table: FoldedSide) -> None:
        """The steered code, scored by its table."""
        dictionary = self._weight("dictionary", self.fitted.sae.dictionary)
        bias = self._weight("sae_bias", self.fitted.sae.bias)
        turned = ["turned_indices", "turned_values"]
        self._op("Steer", [*code, *KNOBS, dictionary], turned)
        decoded = self._op("SparseDecode", [*turned, *stats, dictionary, bias], ["steered"])[0]
        inputs = [*self._asked(decoded), *turned, *stats, *self._table("decode", table)]
        self._op("FoldedRecommend", inputs, TOP)

    def _asked(self, embedding: str) -> list[str]:
        """What nodes that recommend begin with."""
        cfae = self.fitted.cfae
        bias = cfae.item_bias
        bias = np.zeros(cfae.n_items, dtype=np.float32) if bias is None else bias
        weights = [self._weight("item_matrix", cfae.items), self._weight("item_bias", bias)]
        return [embedding, *weights, "items", "offsets", "deny", "n"]

    def _table(self, side: str, table: FoldedSide) -> list[str]:
        arrays = {
            "values": table.table.values,
            "scales": table.table.scales,
            "errors": table.table.errors,
            "sums": table.sums,
            "shifts": table.shifts,
            # rounded up: they bound
            "norms": np.nextafter(np.float32(table.norms), np.float32(np.inf)),
        }
        return [self._weight(f"{side}.{name}", array) for name, array in arrays.items()]

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
        if id(array) in self.stored:
            return self._restored(name, self.stored[id(array)])
        kind = np.int8 if array.dtype == np.int8 else np.float32
        return self._hold(name, np.ascontiguousarray(array, dtype=kind).reshape(np.shape(array)))

    def _hold(self, name: str, array: np.ndarray, data_type: int | None = None) -> str:
        self.arrays[name] = array
        self.weights[name] = empty_tensor(self.onnx, name, array, data_type)
        return name

    def _restored(self, name: str, stored: Stored) -> str:
        """Nodes that turn fewer bits into `name`; a session runs them once, when it loads."""
        kind = self.onnx.TensorProto.BFLOAT16 if stored.precision == "bf16" else None
        bits = self._hold(f"{name}.{stored.precision}", stored.bits, kind)
        if stored.scales is None:
            return self._node("Cast", [bits], [name], to=1)
        values = self._node("Cast", [bits], [f"{name}.values"], to=1)
        scales = self._weight(f"{name}.scales", stored.scales)
        return self._node("Mul", [values, scales], [name])

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
            op, inputs, outputs, op, domain=functions.DOMAIN, version=DOMAIN_VERSION, **attributes
        )
        self.nodes.append(node)
        self.ops.add(op)
        return outputs
