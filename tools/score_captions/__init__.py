"""Scores captions of drawn scenes against the scenes' truth."""

from tools.score_captions.mentions import colored_things
from tools.score_captions.score import CaptionScore, score_captions

__all__ = ["CaptionScore", "colored_things", "score_captions"]
