from pathlib import Path

import torch

from pretrain.data.tokens import Tokenizer

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
