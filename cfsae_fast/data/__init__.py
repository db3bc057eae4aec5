"""Floor 2: interactions, tags and data sets: reading, filtering, splitting, holding out.

Station: (user, item) -> CSR, where the story begins. Importing this needs numpy only.
"""

from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.fetching import Fetched, fetch
from cfsae_fast.data.files import read_csv, read_parquet, read_tags
from cfsae_fast.data.filters import (
    Binarize,
    Filters,
    KCore,
    MinItemInteractions,
    MinUserInteractions,
    MinValue,
)
from cfsae_fast.data.generated import generate, stream
from cfsae_fast.data.holdouts import (
    NO_TAG,
    HoldOut,
    hold_out_last,
    hold_out_random,
    hold_out_random_and_tag,
    hold_out_tag,
)
from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.layouts import read_lastfm, read_movielens, read_msd, read_shared
from cfsae_fast.data.loading import cache_directory, data_directories, default_dataset, load
from cfsae_fast.data.sources import SOURCES, FetchError, Source
from cfsae_fast.data.splits import UserSplit, split_users
from cfsae_fast.data.tags import NOBODY, OUTSIDE, STRANGER, Tags, clean_tag

__all__ = [
    "NOBODY",
    "NO_TAG",
    "OUTSIDE",
    "SOURCES",
    "STRANGER",
    "Binarize",
    "Dataset",
    "FetchError",
    "Fetched",
    "Filters",
    "HoldOut",
    "Interactions",
    "KCore",
    "MinItemInteractions",
    "MinUserInteractions",
    "MinValue",
    "Source",
    "Tags",
    "UserSplit",
    "cache_directory",
    "clean_tag",
    "data_directories",
    "default_dataset",
    "fetch",
    "generate",
    "hold_out_last",
    "hold_out_random",
    "hold_out_random_and_tag",
    "hold_out_tag",
    "load",
    "read_csv",
    "read_lastfm",
    "read_movielens",
    "read_msd",
    "read_parquet",
    "read_shared",
    "read_tags",
    "split_users",
    "stream",
]
