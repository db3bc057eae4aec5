"""Floor 2: terms of the data sets this package reads, in a few words; the archives hold the text.

Station: beside the line.
"""

GROUPLENS = (
    "GroupLens terms (README in the archive): research use; redistribution under the same terms; "
    "no commercial use without permission; no implied endorsement; cite Harper and Konstan, "
    "The MovieLens Datasets, ACM TiiS 5(4), 2015"
)
LASTFM = (
    "Last.fm terms (readme in the archive): non-commercial use; commercial users contact Last.fm; "
    "cite Last.fm and HetRec 2011 (Cantador, Brusilovsky, Kuflik)"
)
TASTE_PROFILE = (
    "The Echo Nest Taste Profile Subset: research use, non-commercial; cite Bertin-Mahieux, Ellis, "
    "Whitman, Lamere, The Million Song Dataset, ISMIR 2011; see millionsongdataset.com/tasteprofile"
)
