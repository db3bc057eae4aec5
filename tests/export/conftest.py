"""Exported models, each written once for all tests that ask it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cfsae_fast import export
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(cfae, sae, mode) -> recommender, path; exported.session(..., custom_ops)."""
    folder = tmp_path_factory.mktemp("export")
    return Exported(folder)


class Exported:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = cache(self.model)
        self.session = cache(self.session)

    def model(self, cfae: str, sae: str, mode: str) -> tuple[SteerableRecommender, Path]:
        recommender = SteerableRecommender.from_fitted(make_fitted(cfae, sae))
        path = self.folder / f"{cfae}-{sae}-{mode}.onnx"
        return recommender, export.to_onnx(recommender, path, mode=mode, with_code=True)

    def session(self, cfae: str, sae: str, mode: str, custom_ops: bool) -> Any:
        _, path = self.model(cfae, sae, mode)
        return export.open_session(path, custom_ops=custom_ops, threads=2)


@pytest.fixture(params=[False, True], ids=["plain", "custom"])
def custom_ops(request) -> bool:
    return request.param
