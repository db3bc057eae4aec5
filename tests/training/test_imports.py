"""What a fit leaves unimported."""

import subprocess
import sys


def test_a_fit_imports_no_compiler():
    """torch._dynamo, with sympy, costs every fit seconds and 72 MB."""
    script = """if True:
        import sys, numpy as np, scipy.sparse
        from cfsae_fast import SteerableRecommender
        from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
        from cfsae_fast.data import Interactions
        once = TrainConfig(epochs=1, monitor="loss")
        model = SteerableRecommender(CFAEConfig(d=4), SAEConfig(k=2, n_latents=8),
                                     cfae_training=once, sae_training=once)
        matrix = scipy.sparse.random(40, 20, 0.3, "csr", np.float32, 0)
        model.fit(Interactions.from_scipy(matrix))
        assert "torch" in sys.modules
        found = {"torch._dynamo", "sympy"} & set(sys.modules)
        assert not found, found
    """
    subprocess.run([sys.executable, "-c", script], check=True)
