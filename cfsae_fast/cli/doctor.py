"""Floor 7: `cfsae doctor`: what was built, what this machine has, what is missing and why."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import click

from cfsae_fast import ops
from cfsae_fast._version import __version__
from cfsae_fast.cli.console import json_option, print_json, table

EXTRAS = {
    "cli": ("click", "rich", "pyyaml"),
    "train": ("torch", "scipy", "polars"),
}


def examine() -> dict[str, Any]:
    """Versions, engine build, instruction sets, threads, CUDA, and packages by extra."""
    packages = {}
    for extra, names in {"core": ("numpy", "safetensors"), **EXTRAS}.items():
        for name in names:
            try:
                packages[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                packages[name] = f"missing: pip install 'cfsae-fast[{extra}]'"
    return {
        "cfsae-fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"engine {name}": value for name, value in ops.build_info().items()},
        "threads": ops.get_threads(),
        **packages,
    }


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """What was built, which instruction set is used, and whether CUDA is there or why not."""
    found = examine()
    if as_json:
        print_json(found)
    else:
        rows = [[name, _text(value)] for name, value in found.items()]
        table("cfsae doctor", ["what", "found"], rows)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
