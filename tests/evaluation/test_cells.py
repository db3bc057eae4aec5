"""A cell's file is named after all that its numbers depend on, its base model's after less."""

from dataclasses import replace

import pytest

from cfsae_fast.evaluation.experiments import cells
from cfsae_fast.evaluation.experiments.cells import Grid

GRID = Grid(data=("somewhere",), d=(8,))
CELL = next(GRID.cells())


@pytest.mark.parametrize(
    "changes, same_base",
    [
        ({"sae_config": {"spare": 0.0}}, True),
        ({"sae_training": {"epochs": 2}}, True),
        ({"histories": "full"}, True),
        ({"cfae_training": {"epochs": 2}}, False),
        ({"filters": {"min_user": 9}}, False),
        ({"min_tag": 50}, False),
        ({"published_cfae": True}, False),
    ],
)
def test_settings_change_a_cell_and_the_base_only_where_it_depends_on_them(changes, same_base):
    other = replace(GRID, **changes)
    assert other.key(CELL) != GRID.key(CELL)
    assert (other.base_key(CELL) == GRID.base_key(CELL)) is same_base


@pytest.mark.parametrize("changes, same_base", [({"k": 5}, True), ({"seed": 1}, False)])
def test_so_do_cells(changes, same_base):
    other = replace(CELL, **changes)
    assert GRID.key(other) != GRID.key(CELL)
    assert (GRID.base_key(other) == GRID.base_key(CELL)) is same_base


def test_another_default_of_the_library_is_another_cell(monkeypatch):
    before = GRID.key(CELL), GRID.base_key(CELL)
    real = cells.TrainConfig.for_sae
    monkeypatch.setattr(cells.TrainConfig, "for_sae", lambda **given: real(**{**given, "lr": 0.5}))
    assert GRID.key(CELL) != before[0] and GRID.base_key(CELL) == before[1]


def test_cells_of_one_set_of_settings_share_their_names_over_grids():
    """Another list of seeds or of k leaves the names of the cells that both hold."""
    wider = replace(GRID, seed=(42, 43), k=(16, 32))
    assert wider.key(CELL) == GRID.key(CELL) and wider.base_key(CELL) == GRID.base_key(CELL)
