"""Floor 5: naming latents: every item through encoder and SAE, joined with tags.

Station: stage 3, item codes x tags -> ConceptMap. Needs scipy (extra "train").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cfsae_fast import concepts
from cfsae_fast.concepts import ConceptMap
from cfsae_fast.data import OUTSIDE, Tags
from cfsae_fast.ids import Ids
from cfsae_fast.ops import Code
from cfsae_fast.recommender import probing, trust
from cfsae_fast.recommender.fitted import Fitted

CHUNK = 8192  # items encoded at a time
LABEL_SEED = 42  # of the halves that test a map


def item_codes(fitted: Fitted) -> Code:
    """Codes (I, k) of histories that hold one item each (METHOD.md 5.1)."""
    parts = [
        fitted.sae.encode(fitted.cfae.encode_items(slice(first, first + CHUNK))).code
        for first in range(0, len(fitted.item_ids), CHUNK)
    ]
    width = max(part.indices.shape[1] for part in parts)
    wide = [_widened(part, width) for part in parts]
    return Code(*(np.concatenate(arrays) for arrays in zip(*wide, strict=True)))


def label(
    fitted: Fitted,
    tags: Tags,
    *,
    method: str | None = None,
    top: int | None = None,
    with_toward: bool = True,
) -> Fitted:
    """The model with concepts from `tags`, whose item positions are the model's.

    It gets two maps, each with its own confidence: `concepts`, which boost, suppress, only and
    explanations read, by `method` with `top` latents (as `probing.mapped`; None: its defaults), and
    `probed` for toward. A boost along a probed map moves little, as its many atoms cancel, and
    toward needs them; so neither map can stand in for the other. method "probe" is for those who
    want one map for all: toward reads it then, with the `top` that was asked for.
    with_toward False: no map for toward, which takes most of the time, for who asks boost alone.
    """
    codes, matrix = item_codes(fitted), tags.matrix(len(fitted.item_ids))
    popularity = np.bincount(fitted.histories.items, minlength=len(fitted.item_ids))

    def tested(**how: Any) -> ConceptMap:
        found = probing.mapped(fitted, codes, matrix, tags.names, **how)
        sure = trust.confidence(fitted, codes, matrix, tags.names, seed=LABEL_SEED, **how)
        return replace(found, confidence=sure)

    found = tested(method=method, top=top, popularity=popularity)
    needs = with_toward and method != probing.METHOD
    probed = tested(method=probing.METHOD) if needs else None
    carriers = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32))
    found = replace(found, carriers=carriers)
    names = concepts.latent_names(codes, matrix, tags.names, fitted.sae.n_latents)
    return replace(fitted, concepts=found, probed=probed, latent_names=names)


def onto(tags: Tags, source: Ids, target: Ids) -> Tags:
    """`tags` on the items `source`, moved to the positions of the same ids in `target`."""
    at = np.append(target.lookup(source.values.tolist()), OUTSIDE).astype(np.int32)
    return replace(tags, items=at[tags.items])


def _widened(code: Code, width: int) -> Code:
    missing = ((0, 0), (0, width - code.indices.shape[1]))
    return Code(
        np.pad(code.indices, missing, constant_values=-1),
        np.pad(code.values, missing),
    )
