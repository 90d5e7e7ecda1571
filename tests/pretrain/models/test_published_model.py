"""The whole model and its parts against the published code."""

import torch

from pretrain.data.tokens import PackedTexts
from pretrain.distributed.exchange import Exchange
from pretrain.models.image.hierarchical import HierarchicalConfig, HierarchicalEncoder
from pretrain.models.image.stem import StemConfig
from pretrain.models.image.superpixels import hard_labels
from pretrain.models.registry import ImageConfig, ModelConfig, TextConfig, build_model
from pretrain.models.text.part import PartTextConfig
from pretrain.models.text.whole import WholeTextConfig
from pretrain.objectives.caft import CaftConfig, CaftObjective

#: The tiny model of the stored cases.
IMAGE = HierarchicalConfig(
    width=48,
    num_heads=4,
    depths=[1, 1, 1, 1],
    num_clusters=[8, 6, 4],
    stem=StemConfig(channels=[6, 12, 24, 48], strides=[2, 2, 2, 1]),
)
TEXT = TextConfig(
    part=PartTextConfig(width=48, num_layers=2, num_heads=4, context_length=16, vocab_size=512),
    whole=WholeTextConfig(num_layers=2, num_heads=4),
)
MODEL = ModelConfig(embed_dim=32, image=ImageConfig(hierarchical=IMAGE), text=TEXT)


def packed(text):
    """(B, K, context) padded with 0, the end being the largest token -> packed."""
    rows = [row[: int(row.argmax()) + 1] for row in text.flatten(0, 1)]
    lengths = torch.tensor([0, *map(len, rows)])
    return PackedTexts(torch.cat(rows), lengths.cumsum(0), text.shape[1])


def test_text_encoders(golden, from_published, assert_gradients):
    reference = golden("caft/text_side")
    model = build_model(MODEL)
    state = from_published(reference.group("param."))
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all("image" in name for name in missing.missing_keys)

    features = model.encode_text(packed(reference["in.text"]))

    parts = features.parts.flatten(0, 1)
    torch.testing.assert_close(parts, reference["out.text_fine_global"], rtol=1e-4, atol=1e-5)
    whole = reference["out.text_coarse_global"]
    torch.testing.assert_close(features.whole, whole, rtol=1e-4, atol=1e-5)
    scalar = (reference["in.w_part"] * parts).sum() + (
        reference["in.w_whole"] * features.whole
    ).sum()
    scalar.backward()
    assert_gradients(model, from_published(reference.group("grad.param.")))


def test_superpixel_tokens(golden):
    """Given the winning neighbour of each pixel: labels, segment means, filled dead ones."""
    reference = golden("caft/superpixel_votes_224")
    votes = torch.nn.functional.one_hot(reference["in.vote"].long(), 9).permute(0, 3, 1, 2)
    labels = hard_labels(votes, cell_size=16)
    assert torch.equal(labels, reference["out.labels_full"].long())
    config = HierarchicalConfig(width=24, num_heads=4, stem=StemConfig([24], [8]))
    encoder = HierarchicalEncoder(config, image_size=224)
    torch.testing.assert_close(encoder.positions, reference["param.pos_embed"][0])
    stem_output = reference["in.features"].requires_grad_()

    tokens, dead = encoder.segment_tokens(stem_output, labels)

    assert torch.equal(dead, reference["out.pad_mask"])
    torch.testing.assert_close(tokens, reference["out.tokens_filled"], rtol=1e-4, atol=1e-5)
    (tokens * reference["in.w_tokens"]).sum().backward()
    torch.testing.assert_close(stem_output.grad, reference["grad.features"], rtol=1e-3, atol=1e-5)


def test_whole_model(golden, from_published, pooling_from_published, assert_gradients):
    """Images and texts in, loss and the gradients of all parameters out."""
    reference, stored = golden("caft/full_eval"), golden("caft/tiny_model_state_public").tensors
    model = build_model(MODEL).eval()
    model.load_state_dict(from_published(stored))
    objective = CaftObjective(CaftConfig(), 32)
    attention = {k: t for k, t in stored.items() if k.startswith("visual_proj.")}
    objective.attention_pooling.load_state_dict(
        pooling_from_published({k.removeprefix("visual_proj."): t for k, t in attention.items()})
    )
    scalars = {
        "part_log_scale": "logit_scale",
        "part_bias": "logit_bias",
        "whole_log_scale": "logit_scale_coarse",
        "whole_bias": "logit_bias_coarse",
    }
    with torch.no_grad():
        for own, published in scalars.items():
            getattr(objective, own).copy_(stored[published])

    labels = reference["mid.labels_full"].long()
    image = model.project_image_features(model.image(reference["in.image"].float(), labels=labels))
    text = model.encode_text(packed(reference["in.text"]))

    for features, name in (
        (image.fine_tokens, "image_fine_local"),
        (image.fine_pooled, "image_fine_global"),
        (image.pooled, "image_coarse_global"),
        (text.parts.flatten(0, 1), "text_fine_global"),
        (text.whole, "text_coarse_global"),
    ):
        torch.testing.assert_close(features, reference[f"out.{name}"], rtol=1e-4, atol=1e-5)
    drawn = torch.zeros(4, 4, dtype=torch.int64)
    drawn[~torch.eye(4, dtype=torch.bool)] = reference["in.negative_offsets"].flatten()
    terms = objective.sigmoid_terms(image, text, Exchange(), drawn)
    loss = sum(terms.values())
    torch.testing.assert_close(loss, reference["out.loss"], rtol=1e-5, atol=1e-5)

    loss.backward()
    gradients = reference.group("grad.param.")
    assert_gradients(model, from_published(gradients))
    attention = {k: t for k, t in gradients.items() if k.startswith("visual_proj.")}
    assert_gradients(
        objective.attention_pooling,
        pooling_from_published({k.removeprefix("visual_proj."): t for k, t in attention.items()}),
    )


def test_stem_and_segments_of_the_small_image(golden, from_published):
    """64 px: live tokens that enter the first stage, and the position table of another grid."""
    reference = golden("caft/vision_tiny_64")
    encoder = HierarchicalEncoder(IMAGE, image_size=64).eval()
    encoder.load_state_dict(from_published(reference.group("param.")))
    torch.testing.assert_close(encoder.positions, reference["param.pos_embed"][0])
    labels = reference["mid.labels_grid"].repeat_interleave(8, 1).repeat_interleave(8, 2)
    tokens, dead = encoder.segment_tokens(encoder.stem(reference["in.image"].float()), labels)
    assert torch.equal(dead, reference["mid.pad_mask"])
    expected = reference["mid.stage0_tokens"]
    torch.testing.assert_close(tokens[~dead], expected[~dead], rtol=1e-4, atol=1e-5)
