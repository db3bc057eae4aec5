"""Random requests, most of them wrong, to a custom-op library: fuzz.py LIBRARY SECONDS SEED
MODEL ...

Run under AddressSanitizer by test_fuzz.py; prints how many requests were asked and answered.
"""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

EXTREME = [-1, 2**31, 2**32, 2**63 - 1, -(2**63)]


class Requests:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        if self.random.random() < 0.05:
            return self.random.choice([*EXTREME, high + 1])
        return self.random.randint(low, high)

    def offsets(self, rows: int, total: int) -> np.ndarray:
        drawn = sorted(self.random.randint(0, total) for _ in range(rows + 1))
        if self.random.random() < 0.1:
            self.random.shuffle(drawn)
        if self.random.random() < 0.05:
            drawn[self.random.randrange(len(drawn))] = self.number(-3, total + 3)
        return np.array(drawn, dtype=np.int64)

    def numbers(self, count: int, high: int) -> np.ndarray:
        low_risk = self.random.random() < 0.7
        draw = self.random.randint if low_risk else self.number
        return np.array([draw(0, high) for _ in range(count)], dtype=np.int64)

    def next(self, n_items: int, n_latents: int) -> dict[str, np.ndarray]:
        pick = self.random.choice
        rows, entries, knobs = pick([0, 1, 2, 5, 40]), pick([0, 1, 60, 200]), pick([0, 0, 1, 8])
        weights = [pick([0, 0.1, 0.1, 0.1, -1, np.nan, np.inf, 1e38]) for _ in range(knobs)]
        weights = weights if self.random.random() < 0.3 else [0.1] * knobs
        request = {
            "items": self.numbers(entries, n_items - 1),
            "offsets": self.offsets(rows, entries),
            "knob_latents": self.numbers(knobs, n_latents - 1),
            "knob_weights": np.array(weights, dtype=np.float32),
            "knob_kinds": self.numbers(knobs, 3),
            "knob_offsets": self.offsets(pick([rows, 1, rows + 1]), knobs),
            "alpha": np.array(pick([1, 1, 1, 0.5, 2, np.nan]), dtype=np.float32),
            "deny": self.numbers(pick([0, 0, 3, n_items]), n_items - 1),
            "n": np.array(self.number(1, n_items + 40), dtype=np.int64),
        }
        if self.random.random() < 0.1:
            name = pick(["items", "knob_latents", "knob_weights", "knob_kinds"])
            request[name] = request[name][: self.random.randint(0, len(request[name]))]
        return request


def open_model(model: str, library: str) -> onnxruntime.InferenceSession | None:
    """None: the runtime refused the file, which is as good an answer as any."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(library)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:
        return None


def sizes_of(model: str) -> tuple[int, int]:
    """Items and latents, where a manifest stands beside the model."""
    manifest = Path(model + ".json")
    if not manifest.exists():
        return 90, 96
    said = json.loads(manifest.read_text())
    return said["n_items"], said["n_latents"]


def main(library: str, seconds: float, seed: int, models: list[str]) -> None:
    opened = [(open_model(model, library), sizes_of(model)) for model in models]
    sessions = [(session, sizes) for session, sizes in opened if session is not None]
    requests, asked, answered = Requests(seed), 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked += 1
        session, sizes = requests.random.choice(sessions)
        try:
            session.run(None, requests.next(*sizes))
            answered += 1
        except Exception as error:  # every refusal is a Python exception; a crash is none
            assert "must" in str(error) or not Path(models[0] + ".json").exists(), error
    sys.stdout.write(f"{asked} {answered}\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
