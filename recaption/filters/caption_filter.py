"""One caption's way through the filters, in their order."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from recaption.common.config import ConfigError, check_at_least
from recaption.filters.characters import count_control_characters, non_word_share
from recaption.filters.image_text import ImageTextConfig
from recaption.filters.language import LanguageCheck, LanguageConfig
from recaption.filters.leaks import LeakConfig, LeakFinder
from recaption.filters.markup import find_markup, strip_markdown
from recaption.filters.near_duplicates import NearDuplicateConfig
from recaption.filters.openings import strip_offer, strip_openings
from recaption.filters.refusals import find_refusal
from recaption.filters.repetition import RepetitionConfig, find_repetition
from recaption.filters.words import outside_quotes, split_words, unwrap


@dataclass
class FilterConfig:
    #: Captions with fewer words are rejected.
    min_words: int = 3
    #: Whether to keep captions that hit the token limit, which end in mid-sentence.
    keep_cut_off: bool = False
    #: Most control and replacement characters in a caption.
    max_control_characters: int = 0
    #: Largest share of a caption's pieces between spaces that are no words or numbers.
    max_non_words: float = 0.3
    #: Whether to take off openings (`The image shows`), offers at the end (`Let me know if ...`),
    #: quotation marks around the whole caption, and the marks of markdown.
    strip_boilerplate: bool = True
    #: Whether to keep answers in which the model says what it cannot or will not do.
    keep_refusals: bool = False
    #: Most HTML tags and entities outside quotations: a picture may show one.
    max_html_tags: int = 1
    #: Most web addresses (`https://...`) outside quotations.
    max_urls: int = 2
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)
    leaks: LeakConfig = field(default_factory=LeakConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    near_duplicates: NearDuplicateConfig = field(default_factory=NearDuplicateConfig)
    image_text: ImageTextConfig = field(default_factory=ImageTextConfig)

    def __post_init__(self) -> None:
        for name in ("min_words", "max_control_characters", "max_html_tags", "max_urls"):
            check_at_least(0, {f"filters.{name}": getattr(self, name)})
        if not 0 <= self.max_non_words <= 1:
            raise ConfigError(f"filters.max_non_words={self.max_non_words}: it must be 0 to 1")


@dataclass(frozen=True)
class Verdict:
    """What the filters say about one caption."""

    #: The caption to train on: without boilerplate.
    caption: str
    #: The model's own words where the caption is not the same any more, else None.
    raw_caption: str | None = None
    #: ``code: detail`` of the first filter that rejects the caption; None if it is fit.
    reason: str | None = None
    #: What was changed: ``stripped-opening``, ``stripped-offer``, ...
    notes: tuple[str, ...] = ()


class CaptionFilter:
    """Judges captions one by one; ``near_duplicates`` and ``ImageTextScorer`` need more than one.

    Args:
        config: the thresholds.
        prompt_texts: what the model was asked, system messages included; a caption that repeats it
            is rejected. ``{fields}`` in them are not the prompt's own words.

    Raises:
        ConfigError: a language is expected that nothing here can tell.
    """

    def __init__(self, config: FilterConfig, prompt_texts: Iterable[str] = ()) -> None:
        self._config = config
        self._leaks = LeakFinder(config.leaks, prompt_texts)
        self._language = LanguageCheck(config.language)

    def judge(self, caption: str, finish_reason: str | None) -> Verdict:
        """The verdict on a caption.

        Args:
            caption: as the engine gave it.
            finish_reason: ``length`` where it hit the token limit.
        """
        cleaned, notes = self._strip(caption)
        reason = self._reject_reason(cleaned, finish_reason)
        if not cleaned and notes:
            reason = "empty: nothing but boilerplate"
        raw_caption = caption if notes else None
        return Verdict(cleaned if notes else caption, raw_caption, reason, notes)

    def _strip(self, caption: str) -> tuple[str, tuple[str, ...]]:
        """The caption without boilerplate and what was taken off; itself if nothing was."""
        if not self._config.strip_boilerplate:
            return caption, ()
        notes: list[str] = []
        text = caption.strip()
        for strip, note in (
            (unwrap, "stripped-quotes"),
            (strip_markdown, "stripped-markdown"),
            (partial(strip_openings, min_words=self._config.min_words), "stripped-opening"),
            (strip_offer, "stripped-offer"),
        ):
            changed = strip(text).strip()
            if changed != text:
                notes.append(note)
                text = changed
        return (text, tuple(notes)) if notes else (caption, ())

    def _reject_reason(self, caption: str, finish_reason: str | None) -> str | None:
        config = self._config
        words = split_words(caption)
        if not any(character.isalnum() for character in caption):
            return "empty: no words"
        num_control = count_control_characters(caption)
        if num_control > config.max_control_characters:
            return f"control-characters: {num_control}"
        speech = outside_quotes(caption)
        if token := self._leaks.find_token(speech):
            return f"template-token: {token}"
        if refusal := None if config.keep_refusals else find_refusal(speech):
            return f"refusal: {refusal}"
        if words_of_prompt := self._leaks.find_prompt(caption):
            return f"prompt-leak: {words_of_prompt}"
        if markup := find_markup(speech, config.max_html_tags, config.max_urls):
            return f"markup: {markup}"
        if len(words) < config.min_words:
            return f"too-short: {len(words)} words"
        if repeated := find_repetition(speech, config.repetition):
            return f"repetition: {repeated}"
        if finish_reason == "length" and not config.keep_cut_off:
            return "cut-off: hit the token limit"
        if script := self._language.find_other_script(speech):
            return f"wrong-script: {script}"
        share = non_word_share(speech)
        if share > config.max_non_words:
            return f"non-words: {share:.2f} of the caption"
        if language := self._language.find_other_language(speech):
            return f"wrong-language: {language}"
        return None
