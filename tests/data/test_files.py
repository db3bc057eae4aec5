"""CSV, TSV and Parquet by column names; files that are not what they claim."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import frames, pairs_of

from cfsae_fast.data import Interactions, read_csv, read_parquet, read_tags
from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

ROLES = {"value": "value", "timestamp": "timestamp"}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(frames())
def test_written_and_read_back_is_the_same(tmp_path, frame):
    want = Interactions.from_frame(frame, **ROLES)
    table = pl.DataFrame(frame)
    table.write_parquet(tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet", **ROLES) == want
    if not any(str(one).strip() != str(one) for one in frame["user"] + frame["item"]):
        table.write_csv(tmp_path / "x.csv")
        table.write_csv(tmp_path / "x.tsv", separator="\t")
        for name in ("x.csv", "x.tsv"):
            got = read_csv(tmp_path / name, **ROLES)
            as_text = {
                str(u): {str(i): v for i, v in row.items()} for u, row in pairs_of(want).items()
            }
            assert {
                str(u): {str(i): v for i, v in row.items()} for u, row in pairs_of(got).items()
            } == as_text


def test_named_columns_and_separator(tmp_path):
    path = write(tmp_path / "x.csv", "who;what;stars;extra\n1;a;4.5;?\n2;b;3;?\n")
    x = read_csv(path, user="who", item="what", value="stars", separator=";")
    assert pairs_of(x) == {1: {"a": 4.5}, 2: {"b": 3.0}}


def test_ids_are_integers_only_if_all_are(tmp_path):
    rows = "".join(f"{at},{at}\n" for at in range(3000))
    path = write(tmp_path / "x.csv", f"user,item\n{rows}x,1\n")
    x = read_csv(path)  # the odd one comes after what is sampled
    assert x.user_ids.is_text and "x" in x.user_ids and "17" in x.user_ids
    x = read_csv(write(tmp_path / "y.csv", "user,item\n007,12345678901234567890\n7,2\n"))
    assert sorted(x.user_ids.values.tolist()) == ["007", "7"]
    assert x.item_ids.is_text
    x = read_csv(write(tmp_path / "z.csv", f"user,item\n{2**40},-5\n1,{2**59}\n"))
    assert x.user_ids.values.tolist() == [1, 2**40] and x.item_ids.values.tolist() == [-5, 2**59]


def test_byte_order_mark_crlf_and_quotes(tmp_path):
    path = write(tmp_path / "x.csv", '\ufeffuser,item\r\n"a, b","say ""hi"""\r\n')
    assert pairs_of(read_csv(path)) == {"a, b": {'say "hi"': 1.0}}


def test_last_line_without_line_end_is_fine_when_whole(tmp_path):
    assert read_csv(write(tmp_path / "x.csv", "user,item\n1,2\n3,4")).nnz == 2


@pytest.mark.parametrize(
    "text, message",
    [("", "must hold data, got an empty file"),
     ("\n1,2\n", "must start with a line of column names"),
     ("user,item,value\n", "at least one interaction, got 0 rows"),
     ("user,item,value\n1,2,3\n1,5", "got '1,5' with 2 of 3 fields and no line end: the file is"),
     ("user,item,value\n1,2\n1,5,4\n", "finite float32, got nan at row 0"),
     ("user,item,value\n,2,3\n1,5,4\n", "user ids must not be missing, got none at row 0"),
     ("user,item,value\n1,2,3,4\n", "found more fields"),
     ("user,item,value\n1,2,four\n", "could not parse `four` as dtype `f64`"),
     ("user,item,value\n1,2,nan\n", "finite float32, got nan at row 0"),
     ("user,item,value\n1,2,inf\n", "finite float32, got inf at row 0"),
     ("user,item,value\n1,2,-3\n", "not be negative, got -3.0 at row 0"),
     ("userId,item,rating\n1,2,3\n",
      r"must have the columns \['user', 'item', 'value'\], got \['userId', 'item', 'rating'\] "
      r"\(missing user, value\)")],
)  # fmt: skip
def test_bad_files_are_named_and_explained(tmp_path, text, message):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        read_csv(path, value="value")
    assert "bad.csv" in str(caught.value)


def test_bytes_that_are_not_utf8(tmp_path):
    path = write(tmp_path / "x.csv", "user,item\n1,caf\xe9\n", "latin-1")
    with pytest.raises(DataError, match="utf-8"):
        read_csv(path)


def test_missing_files_and_directories(tmp_path):
    for read, name in ((read_csv, "x.csv"), (read_parquet, "x.parquet")):
        with pytest.raises(DataError, match="must be a file, got none"):
            read(tmp_path / name)
    with pytest.raises(DataError, match="got a directory"):
        read_csv(tmp_path)


def test_parquet_that_is_not(tmp_path):
    with pytest.raises(DataError, match="must be a readable table"):
        read_parquet(write(tmp_path / "x.parquet", "user,item\n1,2\n"))
    pl.DataFrame({"u": [1]}).write_parquet(tmp_path / "y.parquet")
    with pytest.raises(DataError, match=r"must have the columns \['user', 'item'\], got \['u'\]"):
        read_parquet(tmp_path / "y.parquet")
    pl.DataFrame({"user": [1], "item": [2]})[:0].write_parquet(tmp_path / "z.parquet")
    with pytest.raises(DataError, match="z.parquet: frame must hold at least one"):
        read_parquet(tmp_path / "z.parquet")


def test_duplicates_and_negative_values_pass_through(tmp_path):
    path = write(tmp_path / "x.csv", "user,item,value\n1,2,3\n1,2,4\n")
    assert read_csv(path, value="value", duplicates="sum").values.tolist() == [7]
    path = write(tmp_path / "x.csv", "user,item,value\n1,2,-3\n")
    assert read_csv(path, value="value", allow_negative=True).values.tolist() == [-3]


def test_tags_from_files(tmp_path):
    ids = Ids(["1", "02"])  # text, though they look like numbers
    path = write(tmp_path / "t.csv", "item,tag,weight\n1, Noir ,30\n02,noir,12\n9,space,1\n")
    tags = read_tags(path, item_ids=ids, weight="weight")
    assert tags.names == ("noir", "space") and tags.matrix(2).toarray().tolist() == [
        [30, 12],
        [0, 0],
    ]
    pl.DataFrame({"item": ["02"], "tag": ["x"]}).write_parquet(tmp_path / "t.parquet")
    assert read_tags(tmp_path / "t.parquet", item_ids=ids).items.tolist() == [1]
