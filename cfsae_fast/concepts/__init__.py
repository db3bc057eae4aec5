"""Floor 2: human concepts on the SAE's latents: item codes x tags -> ConceptMap.

Station: stage 3, and the lookup behind steer. `scores` says how strongly a latent stands for a
tag, `mapping` chooses, `map` is what is kept. Looking up needs numpy alone; building needs scipy.
"""

from cfsae_fast.concepts.map import Concept, ConceptMap
from cfsae_fast.concepts.mapping import (
    DEFAULT_METHOD,
    DEFAULT_TOP,
    METHODS,
    NAMINGS,
    build,
    latent_names,
)

__all__ = [
    "DEFAULT_METHOD",
    "DEFAULT_TOP",
    "METHODS",
    "NAMINGS",
    "Concept",
    "ConceptMap",
    "build",
    "latent_names",
]
