import json
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from pretrain.data.tokens import Tokenizer
from tests.places import SHARED

TEXTS = [["a red ball", "two trees stand behind the house"], ["", "word " * 200]]


def test_packing_lays_captions_end_to_end() -> None:
    tokenizer = Tokenizer(16)
    packed = tokenizer.pack(TEXTS)
    flat = [tokenizer.encode(text) for texts in TEXTS for text in texts]
    assert len(packed.offsets) == 5
    assert packed.num_texts_per_image == 2
    assert packed.offsets.diff().tolist() == [len(caption) for caption in flat]
    for index, caption in enumerate(flat):
        assert packed.tokens[packed.offsets[index] : packed.offsets[index + 1]].tolist() == caption


def test_a_long_caption_is_cut_and_keeps_its_end() -> None:
    tokenizer = Tokenizer(16)
    assert len(tokenizer.encode(TEXTS[1][1])) == 16
    assert tokenizer.encode(TEXTS[1][1])[-1] == tokenizer.encode("a")[-1]
    assert tokenizer.is_cut(TEXTS[1][1])
    assert not tokenizer.is_cut(TEXTS[0][0])


def test_a_saved_tokenizer_gives_the_same_tokens(tmp_path: Path) -> None:
    Tokenizer(16).save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer", 16)
    assert torch.equal(loaded.pack(TEXTS).tokens, Tokenizer(16).pack(TEXTS).tokens)
    assert loaded.vocab_size == 49408


@pytest.mark.parametrize(
    "text",
    [
        "A dog's ball, 3.5 m away; (it'll ROLL)!",
        "tabs\tand\nlines\x0c of  all kinds \x1b[31m",
        "Caf&eacute; &amp;amp; cr\u00e8me, \u201cquoted\u201d don\u2019t \ufb01sh",
        "\u4e00\u53ea\u72d7 \U0001f415 \u00c3\u00a9",
        "<start_of_text>a <end_of_text>",
        "~`!@#$%^*()_+{}|:\"<>?-=[];'\\,./ \x7f",
        " ",
    ],
)
def test_tokens_are_those_of_the_library(text: str) -> None:
    library, tokenizer = SimpleTokenizer(), Tokenizer()
    for _ in range(2):  # the second time from memory
        tokens = [library.sot_token_id, *library.encode(text), library.eot_token_id]
        assert tokenizer.encode_whole(text) == tokens


def test_long_captions_have_the_tokens_of_the_library() -> None:
    library, tokenizer = SimpleTokenizer(), Tokenizer()
    files = sorted((SHARED / "data" / "long_captions").glob("*.jsonl"))
    if not files:
        pytest.skip("no long captions; set CANOPY_SHARED")
    for file in files:
        for line in file.read_text().splitlines()[:200]:
            caption = json.loads(line)["caption"]
            assert tokenizer.encode_whole(caption)[1:-1] == library.encode(caption)


def test_words_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "_MAX_KNOWN_WORDS", 10)
    tokenizer, library = Tokenizer(), SimpleTokenizer()
    for number in range(40):
        text = f"word{number} and {number}x <end_of_text>"
        assert tokenizer.encode_whole(text)[1:-1] == library.encode(text)
    assert len(tokenizer._known_words) <= 10 and len(tokenizer._bpe.cache) <= 30
