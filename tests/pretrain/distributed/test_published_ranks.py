"""Losses and gradients on two and three ranks, against the published code on as many."""

import pytest
import torch
from safetensors.torch import load_file

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.importers.caft import NUMBERS
from pretrain.release.importers.keys import attention_pooling_keys, rename
from tests.places import SHARED
from tests.pretrain.distributed.processes import run_rank
from tests.pretrain.published import published_draw

GOLDEN = SHARED / "golden"
#: (number of ranks, stored case); the features of CLIP and SigLIP are stored as unit vectors.
CASES = [
    (2, "caft/loss_2rank"),
    (3, "caft/loss_3rank"),
    (2, "flair/loss_2rank"),
    (3, "flair/loss_3rank"),
    (2, "clip/loss_2rank_local1_grad1"),
    (2, "siglip/loss_2rank_bidir"),
    (3, "siglip/loss_3rank_bidir"),
    (3, "siglip/loss_3rank_gather"),
]
#: Names of the image features and the text features in each method's files.
IMAGE = {
    "caft": {
        "pooled": "image_coarse_global",
        "fine_pooled": "image_fine_global",
        "fine_tokens": "image_fine_local",
    },
    "flair": {"pooled": "image_features", "tokens": "image_tokens"},
    "clip": {"pooled": "image_features"},
    "siglip": {"pooled": "image_features"},
}
TEXT = {
    "caft": {"whole": "text_coarse_global", "parts": "text_fine_global"},
    "flair": {"parts": "text_features"},
    "clip": {"whole": "text_features"},
    "siglip": {"whole": "text_features"},
}
TERMS = {"part_local": "ftcs_loss", "part_global": "fmps_loss", "whole": "cmps_loss"}


def scalars_of(method):
    """Stored name of each temperature and bias, and ours."""
    if method == "caft":
        return NUMBERS
    both = {"logit_scale": "log_scale", "logit_bias": "bias"}
    return both if method != "clip" else {"logit_scale": "log_scale"}


def pooling_keys(prefix):
    return list(attention_pooling_keys(prefix, "attention_pooling."))


def run(case, rank):
    """Terms of the loss, and the gradients of features and parameters, of this rank."""
    tensors, method = load_file(GOLDEN / f"{case}.safetensors"), case.split("/")[0]
    own = {name: tensors[f"rank{rank}.in.{key}"] for name, key in IMAGE[method].items()}
    batch = len(own["pooled"])
    for name, key in TEXT[method].items():
        features = tensors[f"rank{rank}.in.{key}"]
        own[name] = features.unflatten(0, (batch, -1)) if name == "parts" else features
    own = {name: tensor.requires_grad_() for name, tensor in own.items()}
    image = ImageFeatures(**{name: own[name] for name in IMAGE[method]})
    text = TextFeatures(**{name: own[name] for name in TEXT[method]})

    objective = build_objective(ObjectiveConfig(method), own["pooled"].shape[1])
    with torch.no_grad():
        for key, name in scalars_of(method).items():
            value = tensors[f"in.{key}"]
            getattr(objective, name).copy_(value.log() if "scale" in key else value)
    if method in ("caft", "flair"):
        weights = rename(tensors, pooling_keys("param.visual_proj."))
        objective.load_state_dict(weights, strict=False)
        drawn = published_draw(tensors[f"rank{rank}.in.negative_offsets"])
        form = objective.sigmoid_terms if method == "caft" else objective.terms
        terms = form(image, text, Exchange(), drawn)
    else:
        terms = objective(image, text, Exchange())
    sum(terms.values()).backward()
    gradients = {name: tensor.grad for name, tensor in own.items()}
    if "parts" in gradients:
        gradients["parts"] = gradients["parts"].flatten(0, 1)
    return {
        "terms": {name: term.detach() for name, term in terms.items()},
        "features": gradients,
        "parameters": {name: p.grad for name, p in objective.named_parameters()},
    }


@pytest.mark.parametrize(("world_size", "case"), CASES, ids=[case for _, case in CASES])
def test_equals_published_ranks(world_size, case, golden, ranks):
    reference, method = golden(case), case.split("/")[0]
    results = [result[case] for result in ranks(world_size)]
    for rank, result in enumerate(results):
        loss = sum(result["terms"].values())
        expected = reference[f"rank{rank}.out.loss"]
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        if method == "caft":
            for name, key in TERMS.items():
                expected = reference[f"rank{rank}.out.{key}"]
                torch.testing.assert_close(result["terms"][name], expected, rtol=1e-5, atol=1e-5)
        for name, key in (IMAGE[method] | TEXT[method]).items():
            expected = reference[f"rank{rank}.grad.{key}"]
            if method in ("clip", "siglip"):
                # Stored as unit vectors, with the gradients before the normalisation.
                unit = reference[f"rank{rank}.in.{key}"]
                expected = expected - (expected * unit).sum(1, keepdim=True) * unit
            torch.testing.assert_close(result["features"][name], expected, rtol=1e-3, atol=1e-5)
        if method in ("caft", "flair"):
            prefix = f"rank{rank}.grad.param.visual_proj."
            for name, expected in rename(reference.tensors, pooling_keys(prefix)).items():
                own = result["parameters"][name]
                torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-5)
    for key, name in scalars_of(method).items():
        # Which rank a temperature's gradient falls to is a matter of bookkeeping; the sum is not.
        expected = sum(reference[f"rank{rank}.grad.{key}"] for rank in range(world_size))
        expected = expected * reference[f"in.{key}"] if "scale" in key else expected
        own = sum(result["parameters"][name] for result in results)
        torch.testing.assert_close(own[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("with_gradient", [0, 1])
def test_the_mean_of_the_ranks_is_the_loss_of_the_whole_batch(with_gradient, golden, ranks):
    """The published loss without `local_loss`: every rank computes that of all samples."""
    reference = golden(f"clip/loss_2rank_local0_grad{with_gradient}")
    results = [result["clip/loss_2rank_local1_grad1"] for result in ranks(2)]
    mean = sum(sum(result["terms"].values()) for result in results) / 2
    for rank in range(2):
        same = golden("clip/loss_2rank_local1_grad1")[f"rank{rank}.in.image_features"]
        assert torch.equal(reference[f"rank{rank}.in.image_features"], same)
        expected = reference[f"rank{rank}.out.loss"]
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    run_rank(lambda rank, world_size: {c: run(c, rank) for n, c in CASES if n == world_size})
