"""Which captions are not worth training on, and why: one filter a file."""

from recaption.filters.caption_filter import CaptionFilter, FilterConfig, Verdict
from recaption.filters.image_text import ImageTextConfig, ImageTextScorer
from recaption.filters.language import LanguageConfig
from recaption.filters.leaks import LeakConfig
from recaption.filters.near_duplicates import NearDuplicateConfig, near_duplicates
from recaption.filters.repetition import RepetitionConfig

__all__ = [
    "CaptionFilter",
    "FilterConfig",
    "ImageTextConfig",
    "ImageTextScorer",
    "LanguageConfig",
    "LeakConfig",
    "NearDuplicateConfig",
    "RepetitionConfig",
    "Verdict",
    "near_duplicates",
]
