import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pretrain.data.tokens import pack_tokens
from pretrain.distributed.exchange import Exchange
from pretrain.models.count import CountConfig, count_parameters, main
from pretrain.models.registry import build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective, check_features
from pretrain.trained_module import TrainedModule
from recaption.common.config import ConfigError, load_config
from tests.places import CONFIGS


def config_of(*names):
    """Of files of `configs`, and `key=value`."""
    paths = [name if "=" in name else str(CONFIGS / f"{name}.yaml") for name in names]
    return load_config(CountConfig, paths)


def count(*names):
    config = config_of(*names)
    with torch.device("meta"):
        model = build_model(config.model)
        objective = build_objective(config.objective, config.model.embed_dim)
    return count_parameters(model, objective)


def test_base_size_is_the_published_one():
    counts = count("model/caft_b", "objective/caft")
    positions = 784 * 768 + 768  # stored as frozen parameters there, computed here
    assert counts["image"] == 103_937_376 - positions
    assert counts["part_text"] == 50_556_416
    assert counts["whole_text"] == 12_964_181
    assert counts["projections"] == 786_432 + 262_144 + 262_144
    assert counts["objective"] == 1_053_696 + 4
    superpixel_network = 2_287_956
    assert counts["total"] + positions + superpixel_network == 172_110_349


def test_sizes_grow():
    totals = [count(f"model/caft_{size}")["total"] for size in ("ti", "s", "b", "l")]
    assert totals == sorted(totals)


def test_tiny_pairs_are_of_the_same_size():
    caft, vit = count("model/caft_ti", "objective/caft"), count("model/vit_ti", "objective/clip")
    assert vit["image"] == pytest.approx(caft["image"], rel=0.03)
    texts = [c["part_text"] - c["token_embedding"] + c["whole_text"] for c in (caft, vit)]
    assert texts[1] == pytest.approx(texts[0], rel=0.05)


def texts(num_texts):
    rows = [[1] * length for length in (9, 4, 6, 4, 12, 3, 8, 5)[: 2 * num_texts]]
    return pack_tokens(rows, num_texts)


@pytest.mark.parametrize(
    ("model_name", "objective_name", "num_texts"),
    [
        ("caft_ti", "caft", 4),
        ("caft_ti", "caft_softmax", 4),
        ("caft_ti", "clip", 4),
        ("vit_ti", "clip", 1),
        ("vit_ti", "siglip", 1),
        ("vit_ti", "flair", 3),
    ],
)
def test_every_parameter_gets_a_gradient(model_name, objective_name, num_texts):
    torch.manual_seed(0)
    config = config_of(f"model/{model_name}", f"objective/{objective_name}")
    model = build_model(config.model)
    objective = build_objective(config.objective, config.model.embed_dim)
    check_features(objective, model, num_texts)
    image = model.encode_image(torch.randn(2, 3, 112, 112))
    text = model.encode_text(texts(num_texts))
    terms = objective(image, text, Exchange(), torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    idle = [
        n for n, p in [*model.named_parameters(), *objective.named_parameters()] if p.grad is None
    ]
    if (model_name, objective_name) == ("caft_ti", "clip"):
        assert idle == [n for n in idle if "fine" in n or "project_part_text" in n]
    else:
        assert not idle


def test_hierarchy_from_pixels_to_the_last_tokens():
    model = build_model(config_of("model/caft_ti").model).eval()
    features = model.encode_image(torch.randn(2, 3, 112, 112), with_hierarchy=True)
    hierarchy = features.hierarchy
    assert hierarchy.labels.shape == (2, 112, 112)
    assert [a.shape[1:] for a in hierarchy.assignments] == [(196, 64), (64, 32), (32, 16)]
    for assignment in hierarchy.assignments:
        torch.testing.assert_close(assignment.sum(2), torch.ones(assignment.shape[:2]))
    assert features.fine_tokens.shape == (2, 64, 128)
    assert features.tokens.shape == (2, 16, 128)
    assert model.encode_image(torch.randn(2, 3, 112, 112)).hierarchy is None


def test_mean_pooling_is_the_mean_of_the_tokens():
    images = torch.randn(2, 3, 112, 112)
    features = {}
    for pool in ("cls", "mean"):
        torch.manual_seed(0)
        config = config_of("model/caft_ti").model
        config.image.hierarchical.pool = pool
        features[pool] = build_model(config).eval().encode_image(images)
    assert torch.equal(features["cls"].tokens, features["mean"].tokens)
    mean = features["mean"]
    torch.testing.assert_close(mean.pooled, mean.tokens.mean(1))
    torch.testing.assert_close(mean.fine_pooled, mean.fine_tokens.mean(1))
    assert not torch.allclose(features["cls"].pooled, mean.pooled, atol=1e-3)


def test_texts_do_not_see_each_other():
    """A text's feature is the same alone and packed with others, in any order."""
    model = build_model(config_of("model/caft_ti").model).eval()
    rows = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16], [17, 18]]
    together = model.encode_text(pack_tokens(rows, 4)).parts[0]
    backwards = model.encode_text(pack_tokens(rows[::-1], 4)).parts[0].flip(0)
    torch.testing.assert_close(together, backwards, rtol=1e-5, atol=1e-6)
    alone = model.encode_text(pack_tokens(rows[:1] * 4, 4)).parts[0, 0]
    torch.testing.assert_close(together[0], alone, rtol=1e-5, atol=1e-6)


def test_missing_features_are_named():
    config = config_of("model/vit_ti", "objective/caft")
    model = build_model(config.model)
    objective = build_objective(config.objective, config.model.embed_dim)
    with pytest.raises(ConfigError, match=r"image\.fine_pooled, image\.fine_tokens.*VisionTransf"):
        check_features(objective, model, 4)


def test_texts_that_nothing_would_see_are_an_error():
    config = config_of("model/vit_ti", "objective/clip")
    model = build_model(config.model)
    objective = build_objective(config.objective, config.model.embed_dim)
    check_features(objective, model, 1)
    with pytest.raises(ConfigError, match=r"data\.captions\.name=whole"):
        check_features(objective, model, 8)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.image.name=resnet", "model.image.name is 'resnet'"),
        ("model.text.name=bert", "model.text.name is 'bert'"),
        ("model.image.size=100", "not a multiple of superpixels.cell_size"),
        ("model.image.hierarchical.num_heads=7", "width 96 is not a multiple of its 7"),
        ("model.image.hierarchical.num_clusters=[200,32,16]", "196 superpixels cannot be pooled"),
        ("model.image.hierarchical.depths=[2,2]", "do not go together"),
        ("model.image.hierarchical.depths=[2,2,0,2]", "each stage needs a block"),
        ("model.image.hierarchical.pool=max", "pool is 'max'"),
        ("model.image.hierarchical.stem.strides=[2,2]", "differ in length"),
        ("model.image.hierarchical.stem={channels: [], strides: []}", "stem.channels is empty"),
        ("model.image.vit.depth=0", r"model\.image\.vit\.depth=0: it must be at least 1"),
        ("model.text.part.num_layers=0", r"model\.text\.part\.num_layers=0: it must be at least"),
    ],
)
def test_errors_of_the_user(override, message):
    with pytest.raises(ConfigError, match=message):
        build_model(load_config(CountConfig, [str(CONFIGS / "model/caft_ti.yaml"), override]).model)


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["hierarchical", "vit"])
def test_nothing_is_computed_for_tokens_that_nobody_asks_for(kind, pool):
    name = {"hierarchical": "caft_ti", "vit": "vit_ti"}[kind]
    torch.manual_seed(0)
    config = config_of(f"model/{name}", f"model.image.{kind}.pool={pool}").model
    model, images = build_model(config).eval(), torch.randn(2, 3, 112, 112)
    found, cost = {}, {}
    for with_tokens in (True, False):
        with FlopCounterMode(display=False) as flops:
            features = model.image(images, with_tokens=with_tokens)
        cost[with_tokens] = flops.get_total_flops()
        found[with_tokens] = model.project_image_features(features)
    assert found[False].tokens is None
    expected = dict(found[True])
    for name, feature in found[False]:
        torch.testing.assert_close(feature, expected.pop(name))
    assert list(expected) == ["tokens"]
    if pool == "cls":
        assert cost[False] < cost[True]
    else:  # the mean of the tokens needs them
        assert cost[False] == cost[True]


@pytest.mark.parametrize(
    ("model_name", "objective_name", "asks"),
    [
        ("caft_ti", "caft", False),
        ("caft_ti", "caft_softmax", False),
        ("vit_ti", "clip", False),
        ("vit_ti", "flair", True),
    ],
)
def test_training_asks_for_tokens_where_the_objective_needs_them(
    model_name, objective_name, asks, monkeypatch
):
    config = config_of(f"model/{model_name}", f"objective/{objective_name}")
    model = build_model(config.model)
    module = TrainedModule(model, build_objective(config.objective, config.model.embed_dim))
    given = []
    encode_image = model.encode_image

    def encode(*arguments, **keywords):
        given.append(encode_image(*arguments, **keywords))
        return given[-1]

    monkeypatch.setattr(model, "encode_image", encode)
    module(torch.randn(2, 3, 112, 112), texts(4))
    assert [features.tokens is not None for features in given] == [asks]


def test_unknown_objective():
    with pytest.raises(ConfigError, match=r"objective\.name is 'flamingo'"):
        build_objective(ObjectiveConfig(name="flamingo"), 64)


def test_too_few_texts_or_too_long_ones():
    model = build_model(config_of("model/caft_ti").model)
    with pytest.raises(ConfigError, match="needs 4 parts an image and got 2"):
        model.encode_text(texts(2))
    with pytest.raises(ConfigError, match="a text has 90 tokens"):
        model.encode_text(pack_tokens([[1] * 90] * 4, 4))


def test_count_command(capsys):
    macs = []
    for objective in ("caft", "flair"):
        files = [
            str(CONFIGS / f"{name}.yaml") for name in ("model/vit_ti", f"objective/{objective}")
        ]
        main([*files, "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert "image" in lines[0] and "M parameters" in lines[0]
        macs.append(json.loads(lines[-1])["forward_macs"])
    assert macs[0]["text"] == macs[1]["text"]
    assert macs[0]["image"] < macs[1]["image"]  # of which FLAIR's training uses the tokens
