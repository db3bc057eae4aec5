"""Floor 7: the tree of commands."""

from __future__ import annotations

import click

from cfsae_fast._version import __version__
from cfsae_fast.cli import ask, data, demo, doctor, experiment, export, fold, judge, serve, train


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cfsae")
def app() -> None:
    """Recommendations with knobs: train, name the latents, steer, explain, measure.

    \b
    cfsae demo                                        everything once, on real ratings
    cfsae train ml-latest-small --out runs/ml         train both stages
    cfsae recommend runs/ml/model --user 7            top-N of a stored user
    cfsae steer runs/ml/model --user 7 "film noir=0.3, -horror"
    """


for command in (
    data.data,
    train.train,
    train.label,
    ask.recommend,
    ask.steer,
    ask.explain,
    ask.concepts,
    ask.info,
    judge.evaluate,
    experiment.experiment,
    export.export,
    fold.fold,
    serve.serve,
    doctor.doctor,
    demo.demo,
):
    app.add_command(command)
