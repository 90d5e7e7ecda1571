"""The language and the script of a caption, against those that are expected."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from recaption.common.config import ConfigError, check_at_least
from recaption.filters.words import split_words


@dataclass
class LanguageConfig:
    #: ISO 639-1 codes of the languages that captions may have; [] for any.
    expected: list[str] = field(default_factory=lambda: ["en"])
    #: A caption, or its beginning or end, is rejected if its language is an expected one with less
    #: probability than this,
    min_probability: float = 0.1
    #: and another one with at least this. Names and dishes leave many languages possible.
    min_other_probability: float = 0.5
    #: Captions with fewer words are too short to tell their language; their script is looked at.
    min_words: int = 8
    #: Largest share of letters outside quotations that are of another script than the languages'.
    max_other_script: float = 0.05

    def __post_init__(self) -> None:
        check_at_least(1, {"filters.language.min_words": self.min_words})
        for name in ("min_probability", "min_other_probability", "max_other_script"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ConfigError(f"filters.language.{name}={value}: it must be 0 to 1")


# The first word of a letter's Unicode name; languages that are not here are written in Latin.
_SCRIPTS = {
    "CYRILLIC": "be bg kk ky mk mn ru sr tg uk",
    "ARABIC": "ar fa ku ps ug ur",
    "HEBREW": "he yi",
    "GREEK": "el",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "as bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "TIBETAN": "bo dz",
    "ETHIOPIC": "am ti",
    "CJK": "zh ja ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "KATAKANA-HIRAGANA": "ja",
    "HANGUL": "ko",
}
_ALSO_LATIN = ("sr", "ku", "kk")
#: Characters of the beginning and of the end of a caption whose language is told.
_PIECE = 200
#: Names belong to no language. German loses its nouns by this, and is still German.
_NAME = re.compile(r"(?<=[a-z,;.] )[A-Z\u00c0-\u00de][\w'\u2019]*")
_LETTERS = re.compile(r"[^\W\d_]")
#: Every tenth word of a text is one of these in English only: what has that many needs
#: no model to tell its language, which would take a third of the time of all filters.
_PLAINLY_ENGLISH = {"the", "and", "with", "of", "are", "there", "this", "that", "which", "from"}
_PLAIN_SHARE = 0.1


class LanguageCheck:
    """Tells the language with py3langid, whose model is a file of its package (no pickle).

    Raises:
        ConfigError: a language that it does not know is expected.
    """

    def __init__(self, config: LanguageConfig) -> None:
        self._config = config
        self._expected = set(config.expected)
        if self._expected:
            unknown = self._expected - set(_identifier().labels)
            if unknown:
                raise ConfigError(
                    f"filters.language.expected: {sorted(unknown)[0]!r} is no language that "
                    "py3langid knows; give ISO 639-1 codes such as en or de"
                )
        self._scripts = expected_scripts(config.expected)

    def find_other_script(self, speech: str) -> str | None:
        """Another script and its share of the letters, in words; None if there is too little."""
        if speech.isascii() and "LATIN" in self._scripts:
            return None
        if not self._expected:
            return None
        scripts = Counter(script_of(letter) for letter in _LETTERS.findall(speech))
        num_letters = scripts.total()
        for script in self._scripts:
            scripts.pop(script, None)
        share = scripts.total() / num_letters if num_letters else 0.0
        if share <= self._config.max_other_script:
            return None
        return f"{share:.2f} of the letters, {scripts.most_common(1)[0][0].lower()}"

    def find_other_language(self, speech: str) -> str | None:
        """Another language and where it was found, in words; None if there is none."""
        if not self._expected or len(split_words(speech)) < self._config.min_words:
            return None
        pieces = [speech]
        if len(speech) > 2 * _PIECE:
            # A model may begin in one language and go on in another.
            pieces = [speech[:_PIECE], speech[-_PIECE:]]
        for piece, where in zip(pieces, ("", " at the end"), strict=False):
            if "en" in self._expected and is_plainly_english(piece):
                continue
            ranked = _identifier().rank(_NAME.sub("", piece))
            expected = sum(p for language, p in ranked if language in self._expected)
            language, probability = ranked[0]
            if (
                expected < self._config.min_probability
                and probability >= self._config.min_other_probability
            ):
                return f"{language} with probability {probability:.2f}{where}"
        return None


def is_plainly_english(text: str) -> bool:
    """Whether words that are frequent in English only are frequent in a text."""
    words = text.lower().split()
    return sum(word in _PLAINLY_ENGLISH for word in words) > _PLAIN_SHARE * len(words)


def expected_scripts(languages: list[str]) -> set[str]:
    """The scripts that the languages are written in, as Unicode names them."""
    scripts = {script for script, users in _SCRIPTS.items() if set(languages) & set(users.split())}
    elsewhere = {language for users in _SCRIPTS.values() for language in users.split()}
    if any(language not in elsewhere or language in _ALSO_LATIN for language in languages):
        scripts.add("LATIN")
    return scripts


@lru_cache(maxsize=1 << 16)
def script_of(letter: str) -> str:
    """``LATIN``, ``CJK``, ...; a full-width or mathematical letter is the letter it stands for."""
    plain = unicodedata.normalize("NFKC", letter)[:1]
    return unicodedata.name(plain, "UNKNOWN").split()[0]


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
