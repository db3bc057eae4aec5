"""Directories are written whole or not at all; what is damaged or foreign is refused with words."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cfsae_fast import io
from cfsae_fast.errors import ModelFormatError

FILES = {
    "config.json": {"k": 3, "name": "ü"},
    "sae/weights.safetensors": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
}


@pytest.fixture
def saved(tmp_path):
    return io.write_directory(tmp_path / "model", FILES, kind="recommender")


def assert_is_first(path):
    content = io.read_directory(path, kind="recommender")
    assert content["config.json"] == FILES["config.json"]
    np.testing.assert_array_equal(
        content["sae/weights.safetensors"]["w"], FILES["sae/weights.safetensors"]["w"]
    )


def test_round_trip(saved):
    assert_is_first(saved)
    assert sorted(os.listdir(saved.parent)) == ["model"]


def test_replaces_an_earlier_directory_whole(saved):
    io.write_directory(saved, {"only.json": {"a": 1}}, kind="recommender")
    assert io.read_directory(saved, kind="recommender") == {"only.json": {"a": 1}}
    assert not (saved / "config.json").exists()
    assert sorted(os.listdir(saved.parent)) == ["model"]


def test_replaces_without_the_exchange_call(saved, monkeypatch):
    monkeypatch.setattr(io, "_rename_exchange", lambda a, b: False)
    io.write_directory(saved, {"only.json": {"a": 1}}, kind="recommender")
    assert io.read_directory(saved, kind="recommender") == {"only.json": {"a": 1}}
    assert sorted(os.listdir(saved.parent)) == ["model"]


def test_full_disk_keeps_what_was_saved(saved, monkeypatch):
    def full(path, blob):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io, "_write_file", full)
    with pytest.raises(OSError, match="No space left"):
        io.write_directory(saved, {"only.json": {"a": 1}}, kind="recommender")
    monkeypatch.undo()
    assert_is_first(saved)
    assert sorted(os.listdir(saved.parent)) == ["model"]


@pytest.mark.parametrize("kill_at", ["_write_file", "_flush_folder", "_exchange"])
def test_kill_during_save_keeps_what_was_saved(saved, kill_at):
    script = textwrap.dedent(f"""
        import os, signal, numpy as np
        from cfsae_fast import io
        io.{kill_at} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
        io.write_directory({str(saved)!r}, {{"only.json": {{"a": 1}}}}, kind="recommender")
    """)
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert_is_first(saved)
    io.write_directory(saved, {"only.json": {"a": 1}}, kind="recommender")
    assert io.read_directory(saved, kind="recommender") == {"only.json": {"a": 1}}


@pytest.mark.parametrize("name", ["config.json", "sae/weights.safetensors"])
@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
def test_damaged_file_is_named(saved, name, how):
    blob = (saved / name).read_bytes()
    if how == "remove":
        (saved / name).unlink()
    else:
        broken = blob[:-5] if how == "truncate" else blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:]
        (saved / name).write_bytes(broken)
    with pytest.raises(ModelFormatError, match=f"{name.split('/')[-1]} is (damaged|missing)"):
        io.read_directory(saved, kind="recommender")


def test_foreign_directories_are_refused(tmp_path, saved):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(ModelFormatError, match="did not write"):
        io.write_directory(tmp_path / "photos", FILES, kind="recommender")
    assert (tmp_path / "photos" / "cat.jpg").exists()
    with pytest.raises(ModelFormatError, match="not written by this package"):
        io.read_directory(tmp_path / "photos", kind="recommender")
    with pytest.raises(ModelFormatError, match="nothing there"):
        io.read_directory(tmp_path / "absent", kind="recommender")
    with pytest.raises(ModelFormatError, match="must hold a sae, got a recommender"):
        io.read_directory(saved, kind="sae")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFormatError, match="file or link"):
        io.write_directory(tmp_path / "file", FILES, kind="recommender")


def test_newer_format_asks_for_an_upgrade(saved):
    manifest = json.loads((saved / io.MANIFEST).read_text())
    (saved / io.MANIFEST).write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(ModelFormatError, match="upgrade"):
        io.read_directory(saved, kind="recommender")
    assert not io.is_directory_of(saved, kind="recommender")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    path = io.write_json(tmp_path / "a" / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        io.write_json(path, {"a": float("nan")})
    assert io.read_json(path) == {"a": 1}
    assert os.listdir(path.parent) == ["x.json"]


def safetensors(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xff" * 8,
        safetensors({"w": FLOATS}, bytes(7)),
        safetensors({"w": {**FLOATS, "data_offsets": [-8, 0]}}, bytes(8)),
        safetensors({"w": {**FLOATS, "data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"w": {**FLOATS, "data_offsets": [0, 16]}}, bytes(8)),
        safetensors({"w": {**FLOATS, "shape": [3]}}, bytes(8)),
        safetensors({"w": {**FLOATS, "shape": [-1, -2]}}, bytes(8)),
        safetensors({"w": {**FLOATS, "shape": "two"}}, bytes(8)),
        safetensors({"w": {**FLOATS, "dtype": "F8"}}, bytes(8)),
        safetensors({"w": []}),
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_a_header_that_lies_is_refused(blob, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(blob)
    with pytest.raises(ModelFormatError, match="is damaged"):
        io.read_tensors(path)


def test_tensors_are_those_of_the_safetensors_package(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    types = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
    tensors = {name: rng.integers(0, 2, (3, 5)).astype(name) for name in types}
    tensors |= {"none": np.empty((0, 4), np.float32), "scalar": np.array(7.5)}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"by": "hand"})
    got = io.read_tensors(tmp_path / "w.safetensors")
    assert got.keys() == tensors.keys()
    for name, want in tensors.items():
        assert got[name].dtype == want.dtype and not got[name].flags.writeable
        np.testing.assert_array_equal(got[name], want)


def test_what_was_read_stays_when_the_directory_is_replaced(saved):
    mapped = io.read_directory(saved, kind="recommender")["sae/weights.safetensors"]["w"]
    changed = {"sae/weights.safetensors": {"w": np.full((2, 3), 9, np.float32)}}
    io.write_directory(saved, changed, kind="recommender")
    np.testing.assert_array_equal(mapped, FILES["sae/weights.safetensors"]["w"])
