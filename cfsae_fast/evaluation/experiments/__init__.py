"""Floor 6: the experiments of the paper, one command each: reconstruction, concepts, steering."""

from cfsae_fast.evaluation.experiments.cells import Cell, Grid
from cfsae_fast.evaluation.experiments.grid import ALL, EXPERIMENTS, run
from cfsae_fast.evaluation.experiments.published import NAMED, grid_from

__all__ = ["ALL", "EXPERIMENTS", "NAMED", "Cell", "Grid", "grid_from", "run"]
