"""Floor 6: one saved model behind HTTP, for clients that speak JSON.

Station: the last line of the story, asked from outside. Needs the extra "serve".
"""

from cfsae_fast.serving.app import make_app
from cfsae_fast.serving.limits import Limits

__all__ = ["Limits", "make_app"]
