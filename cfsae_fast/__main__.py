"""`python -m cfsae_fast` is `cfsae`."""

import sys

from cfsae_fast.cli import main

sys.exit(main())
