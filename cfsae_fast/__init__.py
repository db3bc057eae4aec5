"""cfsae_fast: steerable recommendations from sparse autoencoders inside collaborative filtering.

    interactions -> CSR -> CFAE.encode -> embedding -> SAE.encode -> code -> steer -> SAE.decode
    -> embedding' -> CFAE.decode -> scores -> top-N

Importing this package imports numpy and safetensors only; training brings torch in when it starts.
"""

from cfsae_fast._version import __version__
from cfsae_fast.recommender import Explanation, Recommendations, SteerableRecommender
from cfsae_fast.sae import SAE
from cfsae_fast.steering import boost, only, suppress, toward

__all__ = [
    "SAE",
    "Explanation",
    "Recommendations",
    "SteerableRecommender",
    "__version__",
    "boost",
    "only",
    "suppress",
    "toward",
]
