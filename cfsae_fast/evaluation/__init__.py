"""Floor 6: a fitted recommender judged on held-out users: ranking, codes, obedient knobs."""

from cfsae_fast.evaluation.protocol import Protocol, prepare, with_everybody
from cfsae_fast.evaluation.quality import Quality, evaluate, judge_codes, judge_ranking
from cfsae_fast.evaluation.steering import Obedience, obedience, spearman

__all__ = [
    "Obedience",
    "Protocol",
    "Quality",
    "evaluate",
    "judge_codes",
    "judge_ranking",
    "obedience",
    "prepare",
    "spearman",
    "with_everybody",
]
