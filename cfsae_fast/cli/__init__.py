"""Floor 7: the command `cfsae`: every station of the story from a terminal.

Exit codes: 0 done; 1 the input or the model is wrong (the message says what to do); 2 the command
line is wrong; 3 an optional package is missing; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from cfsae_fast.errors import MissingExtraError, require_extra

EXIT_WRONG_INPUT, EXIT_MISSING_EXTRA, EXIT_INTERRUPTED = 1, 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Run `cfsae` with `arguments` (None: those of the process) and return the exit code."""
    # torch's OpenMP threads spin while they wait: on a busy machine a training step took ten times
    # as long. OpenMP reads this once, when torch is imported, and results do not depend on it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        for package in ("click", "rich"):
            require_extra(package, extra="cli", purpose="the command line")
        from cfsae_fast.cli.app import app

        return app.main(args=arguments, prog_name="cfsae", standalone_mode=False) or 0
    except Exception as error:
        return _report(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; a training run goes on with --resume\n")
        return EXIT_INTERRUPTED


def _report(error: Exception) -> int:
    """Say what went wrong on stderr and choose the exit code; our own bugs keep their traceback."""
    if isinstance(error, MissingExtraError):
        sys.stderr.write(f"error: {error}\n")
        return EXIT_MISSING_EXTRA
    import click

    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, ValueError | OSError):
        sys.stderr.write(f"error: {error}\n")
        return EXIT_WRONG_INPUT
    raise error


if __name__ == "__main__":
    sys.exit(main())
