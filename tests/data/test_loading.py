"""`load` by name, path and wish; the demo's default."""

import subprocess
import sys

import pytest
from test_layouts import LASTFM, MOVIELENS, write_all

from cfsae_fast.data import data_directories, default_dataset, generate, load
from cfsae_fast.errors import DataError


def test_generated_by_name():
    data = load("generated:users=100,items=50,concepts=5,seed=7,mean_history=12.5")
    assert data == generate(100, 50, 5, seed=7, mean_history=12.5)
    assert load("generated").interactions.n_users == 2000
    assert load("generated:users=100,items=50,concepts=5,seed=7").name.endswith("seed=7")
    with pytest.raises(DataError, match="generated: must set some of .*, got 'sers=5'"):
        load("generated:sers=5")
    with pytest.raises(DataError, match="users must be a number, got 'many'"):
        load("generated:users=many")


def test_names_are_looked_up_in_the_data_directory(monkeypatch, tmp_path):
    write_all(tmp_path / "mine", MOVIELENS)
    write_all(tmp_path / "deep" / "raw", LASTFM)
    write_all(tmp_path / "junk", {"notes.txt": "x"})
    monkeypatch.setenv("CFSAE_DATA_DIR", str(tmp_path))
    assert data_directories()[0] == tmp_path
    assert load("mine").interactions.nnz == 3
    assert load("deep").name == "deep"
    with pytest.raises(DataError, match=r"one of \[.*'deep', .*'mine'.*got 'yours'") as caught:
        load("yours")
    assert "junk" not in str(caught.value)


def test_unknown_layout_lists_what_was_found(tmp_path):
    write_all(tmp_path, {"notes.txt": "x", "ratings.dat": "1::2::3"})
    with pytest.raises(DataError, match=r"got \['notes.txt', 'ratings.dat'\]; read other files"):
        load(tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="got an empty directory"):
        load(tmp_path / "void")


def test_single_files_with_usual_column_names(tmp_path):
    files = {
        "a.csv": "userId,movieId,rating,timestamp\n1,2,3.5,9\n",
        "b.tsv": "user_id\tsong\tplays\nu\ts\t4\n",
        "c.csv": "person,thing\n1,2\n",
        "d.json": "{}",
    }
    write_all(tmp_path, files)
    x = load(tmp_path / "a.csv").interactions
    assert (x.values.tolist(), x.timestamps.tolist()) == ([3.5], [9])
    assert load(tmp_path / "b.tsv").interactions.values.tolist() == [4]
    with pytest.raises(DataError, match=r"must have a user column .* got \['person', 'thing'\]"):
        load(tmp_path / "c.csv")
    with pytest.raises(DataError, match="must be .csv, .tsv or .parquet, got '.json'"):
        load(tmp_path / "d.json")


def test_default_reads_what_is_there(monkeypatch, tmp_path):
    write_all(tmp_path / "ml-latest-small", MOVIELENS)
    monkeypatch.setenv("CFSAE_DATA_DIR", str(tmp_path))
    data, said = default_dataset()
    assert data.interactions.nnz == 3
    assert said == f"ml-latest-small, read from {tmp_path / 'ml-latest-small'}"


def test_default_without_data_or_network_is_generated(nowhere, monkeypatch):
    monkeypatch.setattr("cfsae_fast.data.download._PAUSE_SECONDS", 0)
    data, said = default_dataset(base_url="http://127.0.0.1:9")
    assert data == generate()
    assert said.startswith("a generated catalogue, since ml-latest-small was not to be had: http")


def test_importing_brings_numpy_only():
    heavy = "('polars', 'scipy', 'pandas', 'torch', 'urllib.request', 'http.client')"
    code = f"import sys, cfsae_fast.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
