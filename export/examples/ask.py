"""Ask an exported model with numpy and onnxruntime alone: python ask.py out.onnx ITEM [ITEM ...]
[CONCEPT=ALPHA ...], such as: python ask.py ml.onnx 2 34 "film noir=0.3".

Station: history and knobs -> top-N, wherever onnxruntime runs.
"""

import json
import sys

import numpy as np
import onnxruntime

path, words = sys.argv[1], sys.argv[2:]
with open(path + ".json", encoding="utf-8") as file:
    manifest = json.load(file)


def find(word, table):
    return table[word] if word in table else sys.exit(f"{path}.json does not know {word!r}")


position = {str(item): at for at, item in enumerate(manifest["item_ids"])}
history = [find(word, position) for word in words if "=" not in word]
latents, weights = [], []
for name, alpha in (word.rsplit("=", 1) for word in words if "=" in word):
    concept = find(name, manifest["concepts"])
    latents += concept["latents"]
    weights += [float(alpha) * weight for weight in concept["weights"]]

options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # inputs with a default would be warned of
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
request = {
    "items": np.array(history, dtype=np.int64),
    "offsets": np.array([0, len(history)], dtype=np.int64),
    "knob_latents": np.array(latents, dtype=np.int64),
    "knob_weights": np.array(weights, dtype=np.float32),
    "knob_kinds": np.zeros(len(latents), dtype=np.int64),  # 0: mix
    "knob_offsets": np.array([0, len(latents)], dtype=np.int64),
}
ids, scores = session.run(["ids", "scores"], request)
for item, score in zip(ids[0], scores[0], strict=True):
    title = manifest["titles"][item] if manifest["titles"] else ""
    sys.stdout.write(f"{score:.4f}  {manifest['item_ids'][item]}  {title}\n")
