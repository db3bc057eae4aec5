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
    """exported.model(cfae, sae, mode, folded) -> recommender, path; exported.session(...)."""
    folder = tmp_path_factory.mktemp("export")
    return Exported(folder)


class Exported:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = cache(self.model)
        self.session = cache(self.session)

    def model(
        self, cfae: str, sae: str, mode: str, folded: bool = False, n_items: int = 90
    ) -> tuple[SteerableRecommender, Path]:
        recommender = SteerableRecommender.from_fitted(make_fitted(cfae, sae, n_items=n_items))
        path = self.folder / f"{cfae}-{sae}-{mode}-{folded}-{n_items}.onnx"
        options = {"mode": mode, "folded": folded, "with_code": True}
        return recommender, export.to_onnx(recommender, path, **options)

    def session(
        self,
        cfae: str,
        sae: str,
        mode: str,
        custom_ops: bool,
        folded: bool = False,
        n_items: int = 90,
    ) -> Any:
        _, path = self.model(cfae, sae, mode, folded, n_items)
        return export.open_session(path, custom_ops=custom_ops, threads=2)


@pytest.fixture(params=[False, True], ids=["plain", "custom"])
def custom_ops(request) -> bool:
    return request.param
