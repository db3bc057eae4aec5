"""MovieLens, HetRec Last.fm, Taste Profile and the Parquet layout: written ones and real ones."""

import shutil

import numpy as np
import polars as pl
import pytest
from strategies import pairs_of

from cfsae_fast.data import (
    OUTSIDE,
    STRANGER,
    Filters,
    KCore,
    MinUserInteractions,
    MinValue,
    load,
    read_lastfm,
    read_movielens,
    read_msd,
    read_shared,
)
from cfsae_fast.errors import DataError

MOVIELENS = {
    "ratings.csv": "userId,movieId,rating,timestamp\r\n"
    "1,10,4.0,100\r\n1,30,2.5,50\r\n7,10,5.0,7\r\n",
    "movies.csv": "movieId,title,genres\r\n"
    '10,"Third Man, The (1949)",Film-Noir|Mystery\r\n20,Unrated (1999),Drama\r\n'
    "30,Nothing (2000),(no genres listed)\r\n",
    "tags.csv": "userId,movieId,tag,timestamp\r\n1,10,Vienna ,1\r\n9,10,vienna,1\r\n1,20,x,1\r\n",
}
LASTFM = {
    "user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11\n3\t51\t1\n",
    "artists.dat": 'id\tname\turl\tpictureURL\n51\tSay "Hi\tu\tp\n60\tunheard\tu\tp\n',
    "tags.dat": "tagID\ttagValue\n1\tFilm  Noir\n2\tr&b\n",
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n"
    "2\t51\t1\t1\t4\t2009\n2\t999\t2\t1\t4\t2009\n8\t52\t2\t1\t4\t2009\n",
}


def write_all(directory, files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_bytes(text.encode())
    return directory


@pytest.fixture
def movielens(tmp_path):
    return write_all(tmp_path / "ml-tiny", MOVIELENS)


@pytest.fixture
def lastfm(tmp_path):
    return write_all(tmp_path / "lastfm-tiny", LASTFM)


def test_movielens_written(movielens):
    data = read_movielens(movielens)
    assert data.name == "ml-tiny" and "GroupLens" in data.licence
    assert pairs_of(data.interactions) == {1: {10: 4.0, 30: 2.5}, 7: {10: 5.0}}
    assert data.interactions.timestamps.tolist() == [100, 50, 7]
    assert data.titles == ("Third Man, The (1949)", "Nothing (2000)")
    assert data.tags.names == ("vienna", "x")
    assert data.tags.items.tolist() == [0, 0, OUTSIDE]
    assert data.tags.users.tolist() == [0, STRANGER, 0]


def test_movielens_tags_genres_both_none(movielens):
    assert read_movielens(movielens, tags="genres").tags.names == ("film-noir", "mystery")
    both = read_movielens(movielens, tags="both").tags
    assert both.names == ("film-noir", "mystery", "vienna", "x")
    assert both.for_users(np.array([1])).in_catalogue().names == ("film-noir", "mystery")
    assert read_movielens(movielens, tags="none").tags is None
    with pytest.raises(ValueError, match="tags must be one of"):
        read_movielens(movielens, tags="genre")
    (movielens / "tags.csv").unlink()
    assert read_movielens(movielens).tags.names == ("film-noir", "mystery")
    with pytest.raises(DataError, match="must have tags for tags='tags', got none"):
        read_movielens(movielens, tags="tags")


@pytest.mark.parametrize("name", list(MOVIELENS))
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_truncated_movielens_is_refused(movielens, name, cut):
    path = movielens / name
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=f"{name} must end with a whole line.*truncated"):
        read_movielens(movielens)


def test_movielens_with_other_columns_or_no_file(movielens):
    (movielens / "ratings.csv").write_text("user,movie\n1,2\n")
    with pytest.raises(
        DataError, match=r"\['userId', 'movieId', 'rating', 'timestamp'\], got \['u"
    ):
        read_movielens(movielens)
    (movielens / "ratings.csv").unlink()
    with pytest.raises(DataError, match=r"ratings.csv must be a file, got none"):
        read_movielens(movielens)


def test_movielens_with_mixed_ids(movielens):
    with (movielens / "ratings.csv").open("a") as file:
        file.write("abc,10,3.0,5\n")
    with pytest.raises(DataError, match="could not parse `abc` as dtype `i64`"):
        read_movielens(movielens)


def test_lastfm_written(lastfm):
    data = read_lastfm(lastfm)
    assert pairs_of(data.interactions) == {2: {51: 13883.0, 52: 11.0}, 3: {51: 1.0}}
    assert data.titles == ('Say "Hi', "52")  # 52 is missing from artists.dat
    assert data.tags.names == ("film noir", "r&b")
    assert data.tags.items.tolist() == [0, OUTSIDE, 1]
    assert data.tags.users.tolist() == [0, 0, STRANGER]


def test_lastfm_in_latin_1(lastfm):
    text = LASTFM["artists.dat"].replace('Say "Hi', "Sigur R\xf3s")
    (lastfm / "artists.dat").write_bytes(text.encode("latin-1"))
    assert read_lastfm(lastfm).titles[0] == "Sigur R\xf3s"
    (lastfm / "artists.dat").write_bytes(text.encode())
    assert read_lastfm(lastfm).titles[0] == "Sigur R\xf3s"


@pytest.mark.parametrize("name", list(LASTFM))
def test_truncated_lastfm_is_refused(lastfm, name):
    path = lastfm / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=f"{name} must end with a whole line"):
        read_lastfm(lastfm)


TRIPLETS = "u1\tSOA\t2\nu1\tSOB\t1\nu0\tSOA\t7\nu1\tSOA\t3\n"


def test_taste_profile_with_tags_and_titles(tmp_path):
    triplets = tmp_path / "train_triplets.txt"
    triplets.write_text(TRIPLETS)
    (tmp_path / "song_tag_assignment.csv").write_text("song,tag,weight\nSOA,Rock,100\nSOZ,rock,1\n")
    (tmp_path / "unique_tracks.txt").write_text("TR1<SEP>SOA<SEP>Abba<SEP>SOS\n")
    plain = read_msd(triplets)
    assert pairs_of(plain.interactions) == {"u0": {"SOA": 7.0}, "u1": {"SOA": 5.0, "SOB": 1.0}}
    assert plain.tags is None and "Taste Profile" in plain.licence
    whole = load(tmp_path)
    assert whole.interactions == plain.interactions
    assert whole.titles == ("Abba - SOS", "SOB")
    assert whole.tags.matrix(2).toarray().tolist() == [[100, 0]]
    assert load(triplets).interactions == plain.interactions


def test_taste_profile_cut_or_of_another_form(tmp_path):
    path = tmp_path / "train_triplets.txt"
    path.write_text(TRIPLETS[:-3])
    with pytest.raises(DataError, match="truncated"):
        read_msd(path)
    path.write_text("u1,SOA,2\n")
    with pytest.raises(DataError, match="train_triplets.txt"):
        read_msd(path)
    path.write_text("")
    with pytest.raises(DataError, match="got an empty file"):
        read_msd(path)


def test_parquet_layout_written(tmp_path):
    where = tmp_path / "mine"
    where.mkdir()
    events = pl.DataFrame({"user_id": ["b", "a"], "item_id": [2**40, 3], "value": [2.0, 1.0]})
    events.write_parquet(where / "interactions.parquet")
    assert read_shared(where).titles is None
    items = {"item_id": [3, 2**40, 9], "title": [None, "Big", "?"], "genres": [["A"], None, ["B"]]}
    pl.DataFrame(items).write_parquet(where / "items.parquet")
    (where / "README.md").write_text("# mine\n\n## Licence\nDo as you like.\n\n## Else\n")
    data = read_shared(where)
    assert data.titles == ("3", "Big") and data.tags.names == ("a",)
    assert data.licence == "Do as you like." and data.name == "mine"
    given = {"item_id": [3, 3], "tag": ["x", "y"], "weight": [2.0, 3.0]}
    pl.DataFrame(given).write_parquet(where / "tags.parquet")
    assert read_shared(where).tags.matrix(2).toarray()[:, 0].tolist() == [2, 3]
    assert read_shared(where, tags="both").tags.names == ("a", "x", "y")
    assert load(where) == load(str(where))


def test_parquet_layout_without_its_columns(tmp_path):
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match=r"\['user_id', 'item_id'\], got \['user', 'item'\]"):
        load(tmp_path)


# real data: counts from each README


def test_ml_latest_small(shared):
    path = shared("ml-latest-small")
    data, raw = load(path), load(path / "raw")
    x = data.interactions
    assert (x.nnz, x.n_users, x.n_items) == (100_836, 610, 9_724)
    assert (x.values.min(), x.values.max()) == (0.5, 5.0) and x.timestamps is not None
    assert data.tags.n_assignments == 3_683
    assert (raw.interactions, raw.tags, raw.titles) == (x, data.tags, data.titles)
    assert raw.name == data.name == "ml-latest-small"
    assert data.title(int(x.item_ids.index([1])[0])) == "Toy Story (1995)"
    genres = load(path, tags="genres").tags
    assert genres.n_tags == 19 and "film-noir" in genres.names
    assert len(np.unique(genres.items)) == 9_724 - int((~_listed(path, x)).sum())


def _listed(path, x):
    items = pl.read_parquet(path / "items.parquet")
    listed = items.filter(pl.col("genres").list.len() > 0)["item_id"].to_list()
    mask = np.zeros(x.n_items, bool)
    at = x.item_ids.lookup(listed)
    mask[at[at >= 0]] = True
    return mask


def test_ml_latest_small_as_the_paper_filters(shared):
    data = load(shared("ml-latest-small")).filtered(Filters(MinValue(4), MinUserInteractions(5)))
    frame = pl.read_parquet(shared("ml-latest-small") / "interactions.parquet")
    frame = frame.filter(pl.col("value") >= 4)
    frame = frame.filter(pl.len().over("user_id") >= 5)
    x = data.interactions
    assert x.nnz == len(frame) and x.n_users == frame["user_id"].n_unique()
    assert x.n_items == frame["item_id"].n_unique() == len(data.titles)
    assert data.tags.n_assignments == 3_683
    core = Filters(KCore(user=10, item=10)).apply(x)
    assert core.counts_per_user().min() >= 10 and core.counts_per_item().min() >= 10


def test_hetrec_lastfm(shared):
    path = shared("hetrec2011-lastfm-2k")
    data, raw = load(path), load(path / "raw")
    x = data.interactions
    assert (x.nnz, x.n_users, x.n_items) == (92_834, 1_892, 17_632)
    assert (x.values.min(), x.values.max()) == (1, 352_698)
    assert data.tags.n_assignments == 186_479
    assert len(np.unique(data.tags.items)) - 1 == 12_133  # 12,523 tagged, 390 nobody listened to
    assert (raw.interactions, raw.tags, raw.titles) == (x, data.tags, data.titles)


def test_anime(shared):
    data = load(shared("anime-5k"))
    x = data.interactions
    assert (x.nnz, x.n_users, x.n_items) == (520_609, 5_000, 7_390)
    assert (x.values == 0).sum() == 100_666 and x.timestamps is None
    assert len(np.unique(data.tags.items)) == 7_387 and data.tags.users is None


def test_gowalla(shared):
    data = load(shared("gowalla"))
    x = data.interactions
    assert (x.nnz, x.n_users, x.n_items) == (1_027_370, 29_858, 40_981)
    assert data.tags is None and data.titles is None


def test_cutting_the_real_file_is_noticed(shared, tmp_path):
    for name in ("ratings.csv", "movies.csv", "tags.csv"):
        shutil.copy(shared("ml-latest-small") / "raw" / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    whole = (tmp_path / "ratings.csv").read_bytes()
    (tmp_path / "ratings.csv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated"):
        load(tmp_path)
