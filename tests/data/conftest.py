"""Where the real data sets lie, when they do; tests of their counts are skipped elsewhere."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shared():
    """Function: name of a real data set -> its directory, or skip."""
    base = Path(os.environ.get("CFSAE_DATA_DIR") or ROOT / ".." / "shared" / "data")

    def find(name):
        path = base / name
        if not path.is_dir():
            pytest.skip(f"{name} is not in CFSAE_DATA_DIR or ../shared/data")
        return path

    return find


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set is known by name: an empty directory for CFSAE_DATA_DIR, cwd and cache."""
    monkeypatch.setattr("cfsae_fast.data.loading.data_directories", lambda: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path
