"""The plain way, which benchmarks compare with, computes what is published and what we compute."""

import copy
import json

import pytest
import torch

from pretrain.distributed.exchange import Exchange
from recaption.common.config import UserError, write_config
from tests.pretrain.plain import plain_loss
from tests.pretrain.published import CAFT, build_pair, packed
from tools.bench_step import BenchConfig, main


def test_plain_loss_equals_ours_with_its_gradients():
    torch.manual_seed(0)
    pair = build_pair(CAFT, "caft").eval()
    model, objective = pair["model"], pair["objective"]
    images = torch.randn(3, 3, 224, 224)
    texts = torch.randint(1, 500, (3, 8, 16))
    lengths = torch.randint(3, 17, (3, 8, 1))
    places = torch.arange(16)
    texts = torch.where(places < lengths, texts, 0)
    texts = torch.where(places == lengths - 1, 511, texts)
    drawn = torch.randint(8, (3, 3))

    plain = plain_loss(model, objective, images, texts, drawn)
    plain.backward()
    expected = {name: p.grad.clone() for name, p in pair.named_parameters() if p.grad is not None}
    pair.zero_grad()
    image, text = model.encode_image(images), model.encode_text(packed(texts))
    loss = sum(objective.sigmoid_terms(image, text, Exchange(), drawn).values())
    loss.backward()

    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    own = {name: p.grad for name, p in pair.named_parameters() if p.grad is not None}
    assert own.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            own[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_benchmark_compares_both_ways(tmp_path, capsys):
    config = BenchConfig(model=copy.deepcopy(CAFT), batch_size=3, pooling_batch_size=5, num_turns=1)
    config.model.image.hierarchical.superpixels.name = "slic"
    config.model.text.part.vocab_size = 49408
    config.model.text.part.context_length = 77
    write_config(config, tmp_path / "bench.yaml")
    parts = ["text tower", "with texts of 8 ranks"]  # each takes four processes
    main([str(tmp_path / "bench.yaml"), f"parts=[{','.join(parts)}]", "--json"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])["parts"]
    assert list(measured) == parts
    for part in measured.values():
        assert part["loss"]["plain"] == pytest.approx(part["loss"]["fast"], rel=1e-4)
        assert part["speedup"] > 0
        assert 0 < part["tensors_mib"]["fast"] < part["process_mib"]["fast"]
        assert part["memory_ratio"] == pytest.approx(
            part["tensors_mib"]["fast"] / part["tensors_mib"]["plain"]
        )


def test_an_unknown_part_is_refused():
    with pytest.raises(UserError, match="no part 'stem'"):
        main(["parts=[stem]"])
