"""Floor 5: `SteerableRecommender`: fit, recommend, steer, explain, save, load."""

from cfsae_fast.recommender.core import Recommendations, SteerableRecommender
from cfsae_fast.recommender.explaining import Explanation, HistoryShare, LatentShare
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.live import LiveProfile

__all__ = [
    "Explanation",
    "Fitted",
    "HistoryShare",
    "LatentShare",
    "LiveProfile",
    "Recommendations",
    "SteerableRecommender",
]
