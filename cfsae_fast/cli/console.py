"""Floor 7: what a terminal shows: tables and notes for people, JSON for machines.

Tables go to stdout, notes and progress to stderr, so that a pipe gets the answer alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def note(text: str) -> None:
    """One line for the person who watches (stderr)."""
    err.print(text, style="dim", soft_wrap=True)


def print_json(content: Any) -> None:
    """JSON on stdout; numpy scalars and arrays become plain numbers and lists."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout; numbers stand right, text left."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    rows = [[_cell(value) for value in row] for row in rows]
    for at, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[at], tuple) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[value[0] if isinstance(value, tuple) else value for value in row])
    out.print(drawn)


def _cell(value: Any) -> Any:
    """Text as it is; a number as a one-tuple, so that its column stands right."""
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float | np.floating):
        return (f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}",)
    if isinstance(value, int | np.integer):
        return (f"{value:,}" if not isinstance(value, Plain) else str(int(value)),)
    return str(value)


class Plain(int):
    """An id: a number that is shown without thousands separators."""


def shown_id(value: Any) -> Any:
    """An external id as a cell."""
    return Plain(value) if isinstance(value, int | np.integer) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
