"""Answers of an exported model by numpy and onnxruntime alone: ask_alone.py MODEL LIBRARY REQUEST.

LIBRARY "-" runs standard ops. REQUEST is an .npz of inputs and of the outputs wanted. Prints the
version of onnxruntime that agreed; test_versions.py runs it under several.
"""

import sys

import numpy as np
import onnxruntime

model, library, request = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
if library != "-":
    options.register_custom_ops_library(library)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
arrays = np.load(request)
asked = {name.removeprefix("in."): arrays[name] for name in arrays if name.startswith("in.")}
ids, scores = session.run(["ids", "scores"], asked)
np.testing.assert_array_equal(ids, arrays["ids"])
np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-4, atol=1e-5)
try:  # a refusal must be an error here too
    session.run(None, {**asked, "n": np.array(0)})
except Exception as error:
    assert "must" in str(error), error
else:
    raise AssertionError("n = 0 was answered")
sys.stdout.write(onnxruntime.__version__)
