"""Floor 2: interactions, tags and data sets: reading, filtering, splitting, holding out.

Station: (user, item) -> CSR, where the story begins. Importing this needs numpy only.
"""

from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.filters import (
    Binarize,
    Filters,
    KCore,
    MinItemInteractions,
    MinUserInteractions,
    MinValue,
)
from cfsae_fast.data.holdouts import (
    NO_TAG,
    HoldOut,
    hold_out_last,
    hold_out_random,
    hold_out_random_and_tag,
    hold_out_tag,
)
from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.splits import UserSplit, split_users
from cfsae_fast.data.tags import NOBODY, OUTSIDE, STRANGER, Tags, clean_tag

__all__ = [
    "NOBODY",
    "NO_TAG",
    "OUTSIDE",
    "STRANGER",
    "Binarize",
    "Dataset",
    "Filters",
    "HoldOut",
    "Interactions",
    "KCore",
    "MinItemInteractions",
    "MinUserInteractions",
    "MinValue",
    "Tags",
    "UserSplit",
    "clean_tag",
    "hold_out_last",
    "hold_out_random",
    "hold_out_random_and_tag",
    "hold_out_tag",
    "split_users",
]
