"""Room 3: what leaves the building: a fitted recommender as one .onnx file.

Station: the last line of the story, for any ONNX Runtime. Nothing in the library imports this room.

    path = to_onnx(model, "out.onnx")                      # needs the extra "onnx"
    session = open_session(path)                           # the engine's kernels, or standard ops
    ids, scores = session.run(["ids", "scores"], feeds(model, [["item-1", "item-2"]], n=10))
"""

from cfsae_fast.export.files import Manifest, read_manifest, to_onnx
from cfsae_fast.export.loss import Loss, measure_loss
from cfsae_fast.export.parity import Parity, check_parity
from cfsae_fast.export.precision import lower
from cfsae_fast.export.sessions import custom_ops_path, feeds, open_session
from cfsae_fast.export.triton import to_triton

__all__ = [
    "Loss",
    "Manifest",
    "Parity",
    "check_parity",
    "custom_ops_path",
    "feeds",
    "lower",
    "measure_loss",
    "open_session",
    "read_manifest",
    "to_onnx",
    "to_triton",
]
