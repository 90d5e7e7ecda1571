"""The whole model and its parts against the published code."""

import pytest
import torch
from torch import nn

import pretrain.ops.graph_pooling
from pretrain.distributed.exchange import Exchange
from pretrain.evaluate.scores import with_alpha
from pretrain.models.image.hierarchical import HierarchicalConfig, HierarchicalEncoder
from pretrain.models.image.stem import StemConfig
from pretrain.models.image.superpixels import SpixelFcn, hard_labels
from pretrain.ops.batch_norm import commit_statistics
from pretrain.release.importers.caft import caft_computed, caft_keys
from pretrain.release.importers.keys import import_state, rename
from tests.pretrain.published import CAFT, build_pair, packed, published_draw, some

SUPERPIXELS = "visual.superpixel_generator."


def caft(golden, published):
    """The tiny CAFT with these parameters, and its keys."""
    pair = build_pair(CAFT, "caft").eval()
    keys = list(caft_keys(pair["model"]))
    network = golden("caft/sfcn_weights_public").tensors
    published = published | {f"{SUPERPIXELS}{name}": tensor for name, tensor in network.items()}
    computed = caft_computed(pair["model"])
    pair.load_state_dict(import_state(published, keys, computed, pair.state_dict()))
    return pair["model"], pair["objective"], keys


def superpixel_network(golden):
    network = SpixelFcn()
    network.load_state_dict(golden("caft/sfcn_weights_public").tensors)
    return network


def test_text_encoders(golden, assert_gradients):
    reference = golden("caft/text_side")
    model = build_pair(CAFT, "caft")["model"]
    keys = list(caft_keys(model))
    state = some(reference.group("param."), keys, "model.")
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
    assert_gradients(model, some(reference.group("grad.param."), keys, "model."))


def test_superpixel_network(golden):
    reference = golden("caft/superpixel_sfcn_64")
    network, image = superpixel_network(golden), reference["in.image"].float()
    assignment = network.assignment(image)
    torch.testing.assert_close(assignment, reference["mid.sfcn_prob"], rtol=1e-4, atol=1e-5)
    labels = network(image)
    assert torch.equal(labels, reference["out.labels_full"].long())
    assert torch.equal(labels[:, ::8, ::8], reference["out.labels_grid"])


def without_projection(encoder):
    """What is stored is the stem's output: let its last layer do nothing to it."""
    last = encoder.stem.layers[-1]
    with torch.no_grad():
        last.weight.copy_(torch.eye(24).view_as(last.weight))
        last.bias.zero_()


@pytest.mark.parametrize(("case", "size"), [("sfcn_64", 64), ("votes_224", 224)])
def test_superpixel_tokens(case, size, golden):
    """From the superpixel of each pixel: segment means, pad mask, filled dead ones."""
    reference = golden(f"caft/superpixel_{case}")
    if case == "votes_224":
        votes = nn.functional.one_hot(reference["in.vote"].long(), 9).permute(0, 3, 1, 2)
        assert torch.equal(hard_labels(votes, 16), reference["out.labels_full"].long())
    config = HierarchicalConfig(
        width=24, num_heads=4, num_clusters=[8, 6, 4], stem=StemConfig([24], [8])
    )
    encoder = HierarchicalEncoder(config, image_size=size)
    torch.testing.assert_close(encoder.positions, reference["param.pos_embed"][0])
    without_projection(encoder)
    stem_output = reference["in.features"].requires_grad_()
    labels = reference["out.labels_full"].long()

    tokens, dead = encoder.segment_tokens(stem_output, labels)

    assert torch.equal(dead, reference["out.pad_mask"])
    torch.testing.assert_close(tokens, reference["out.tokens_filled"], rtol=1e-4, atol=1e-5)
    (tokens * reference["in.w_tokens"]).sum().backward()
    torch.testing.assert_close(stem_output.grad, reference["grad.features"], rtol=1e-3, atol=1e-5)


def test_tokens_do_not_leak_between_images(golden):
    """The published means do, where no image of the batch has a pixel of the last superpixel."""
    reference = golden("caft/superpixel_votes_224_quirk")
    labels = reference["out.labels_full"].long()
    assert labels.max() < 195
    config = HierarchicalConfig(width=24, num_heads=4, stem=StemConfig([24], [8]))
    encoder = HierarchicalEncoder(config, image_size=224)
    without_projection(encoder)
    features = reference["in.features"]
    together, _ = encoder.segment_tokens(features, labels)
    for index in range(len(features)):
        row = slice(index, index + 1)
        alone, _ = encoder.segment_tokens(features[row], labels[row])
        assert torch.equal(together[row], alone)
    assert not torch.allclose(together[1], reference["out.tokens_filled"][1], atol=1e-3)


@pytest.mark.parametrize("size", [64, 224])
def test_image_encoder(size, golden, assert_gradients, monkeypatch):
    """Every stage: tokens, picks of the sampling, logits, class tokens, and what comes out."""
    reference = golden(f"caft/vision_tiny_{size}")
    encoder = HierarchicalEncoder(CAFT.image.hierarchical, size).eval()
    encoder.superpixels = superpixel_network(golden)
    keys = [
        key
        for key in caft_keys(build_pair(CAFT, "caft")["model"])
        if key.published.startswith("visual.") and not key.published.startswith(SUPERPIXELS)
    ]
    published = {f"visual.{name}": tensor for name, tensor in reference.group("param.").items()}
    encoder.load_state_dict(
        {n.removeprefix("model.image."): t for n, t in rename(published, keys).items()}
        | {f"superpixels.{n}": t for n, t in encoder.superpixels.state_dict().items()}
    )
    torch.testing.assert_close(encoder.positions, reference["param.pos_embed"][0])

    picks, sample = [], pretrain.ops.graph_pooling.farthest_point_sampling
    monkeypatch.setattr(
        pretrain.ops.graph_pooling,
        "farthest_point_sampling",
        lambda *arguments: picks.append(sample(*arguments)) or picks[-1],
    )
    outputs = {}
    for level, stage in enumerate(encoder.stages):
        stage.register_forward_hook(
            lambda _, inputs, output, level=level: outputs.update(
                {f"into{level}": inputs[0], f"block{level + 1}": output}
            )
        )
    for level, pooling in enumerate(encoder.poolings, start=1):
        pooling.register_forward_hook(
            lambda _, inputs, output, level=level: outputs.update(
                zip((f"cls{level}", f"centroid{level}", f"logit{level}"), output, strict=True)
            )
        )
    image = reference["in.image"].float().requires_grad_()
    labels = encoder.superpixels(image)
    assert torch.equal(labels[:, ::8, ::8], reference["mid.labels_grid"])

    features = encoder(image)

    def close(name, tensor):
        torch.testing.assert_close(
            tensor, reference[name], rtol=1e-4, atol=1e-5, msg=lambda m: f"{name}: {m}"
        )

    close("mid.stage0_tokens", outputs["into0"][:, 1:])
    _, dead = encoder.segment_tokens(encoder.stem(image), labels)
    assert torch.equal(dead, reference["mid.pad_mask"])
    for level in (1, 2, 3):
        close(f"mid.block{level}", outputs[f"block{level}"])
        assert torch.equal(picks[level - 1], reference[f"out.sampled_inds{level}"])
        close(f"out.logit{level}", outputs[f"logit{level}"])
        close(f"mid.centroid{level}", outputs[f"centroid{level}"])
        close(f"mid.cls{level}", outputs[f"cls{level}"])
    given = {
        "fine_local": features.fine_tokens,
        "fine_global": features.fine_pooled,
        "coarse_local": features.tokens,
        "coarse_global": features.pooled,
    }
    for name, tensor in given.items():
        close(f"out.image_{name}", tensor)
    scalar = sum((tensor * reference[f"in.w_{name}"]).sum() for name, tensor in given.items())
    scalar.backward()
    if size == 64:
        torch.testing.assert_close(image.grad, reference["grad.image"], rtol=1e-3, atol=1e-5)
    gradients = {f"visual.{n}": t for n, t in reference.group("grad.param.").items()}
    assert_gradients(encoder, some(gradients, keys, "model.image."))


@pytest.mark.parametrize("case", ["full_eval", "full_train_bn"])
def test_whole_model(case, golden, assert_gradients):
    """Images and texts in, loss and the gradients of all parameters out.

    In training, the stem's BatchNorms see the batch and, once it is committed, move; the
    superpixel network's, unlike those of the published code, do not.
    """
    reference = golden(f"caft/{case}")
    model, objective, keys = caft(golden, golden("caft/tiny_model_state_public").tensors)
    frozen = {n: t.clone() for n, t in model.image.superpixels.state_dict().items()}
    if case == "full_train_bn":
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    images = reference["in.image"].float()
    model.image.superpixels(images)  # would move statistics that are not frozen
    # Some pixels are within rounding of two superpixels; the stored labels leave no doubt.
    labels = reference["mid.labels_full"].long()
    image = model.project_image_features(model.image(images, labels=labels))
    text = model.encode_text(packed(reference["in.text"]))

    for features, name in (
        (image.fine_tokens, "image_fine_local"),
        (image.fine_pooled, "image_fine_global"),
        (image.tokens, "image_coarse_local"),
        (image.pooled, "image_coarse_global"),
        (text.parts.flatten(0, 1), "text_fine_global"),
        (text.whole, "text_coarse_global"),
    ):
        torch.testing.assert_close(features, reference[f"out.{name}"], rtol=1e-4, atol=1e-5)
    drawn = published_draw(reference["in.negative_offsets"])
    terms = objective.sigmoid_terms(image, text, Exchange(), drawn)
    for name, published in (("part_local", "ftcs"), ("part_global", "fmps"), ("whole", "cmps")):
        torch.testing.assert_close(
            terms[name], reference[f"out.{published}_loss"], rtol=1e-5, atol=1e-5
        )
    loss = sum(terms.values())
    torch.testing.assert_close(loss, reference["out.loss"], rtol=1e-5, atol=1e-5)

    loss.backward()
    commit_statistics(model)
    gradients = some(reference.group("grad.param."), keys)
    assert_gradients(nn.ModuleDict({"model": model, "objective": objective}), gradients)
    for name, tensor in model.image.superpixels.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    moved = {
        name: tensor
        for name, tensor in some(reference.group("after."), keys, "model.").items()
        if "superpixels" not in name
    }
    own = model.state_dict()
    for name, tensor in moved.items():
        torch.testing.assert_close(own[name], tensor, rtol=1e-4, atol=1e-5)
    assert bool(moved) == (case == "full_train_bn")


def test_retrieval_from_images_and_texts(golden):
    """Six images and six captions in, the published scores out."""
    reference = golden("caft/retrieval")
    model, objective, _ = caft(golden, golden("caft/tiny_model_state_public").tensors)
    labels = reference["mid.labels_full"].long()
    with torch.inference_mode():
        images = model.image(reference["in.image"].float(), labels=labels)
        image = model.project_image_features(images)
        text = model.encode_text(packed(reference["in.text"]))
        for alpha, name in ((0.0, "coarse"), (1.0, "fine"), (0.3, "blend")):
            score = with_alpha(objective, alpha).score(image, text)
            expected = reference[f"out.score_{name}"]
            torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)
    for features, name in (
        (image.fine_tokens, "image_fine_local"),
        (image.pooled, "image_coarse_global"),
        (text.parts.flatten(0, 1), "text_fine_global"),
        (text.whole, "text_coarse_global"),
    ):
        torch.testing.assert_close(features, reference[f"mid.{name}"], rtol=1e-4, atol=1e-5)
    # The cheap variant: the best by whole captions, ranked again by the blend.
    shortlist = reference["out.score_coarse"].topk(reference.hyper["top_k"], dim=1).indices
    assert torch.equal(shortlist.sort(dim=1).values, reference["out.topk_index"].sort(1).values)
    blended = score.gather(1, reference["out.topk_index"])
    torch.testing.assert_close(blended, reference["out.topk_scores"], rtol=1e-4, atol=1e-5)
