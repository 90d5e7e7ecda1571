"""Reference tensors, computed by the methods' published code."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.places import SHARED

GOLDEN = SHARED / "golden"

#: Published key -> ours, in the order in which they apply.
CAFT_NAMES = [
    (r"^visual\.", "image."),
    (r"patch_embed\.proj\.", "stem.layers."),
    (r"\battn\.qkv\.", "attention.qkv."),
    (r"\battn\.proj\.", "attention.project."),
    (r"\battn\.in_proj_", "attention.qkv."),
    (r"\battn\.out_proj\.", "attention.project."),
    (r"\.cls_token$|^cls_token$", lambda m: m[0].replace("cls_token", "cls")),
    (r"pools\.(\d)\.pool_block\.", r"poolings.\1."),
    (r"pool_block\.", ""),
    (r"centroid_fc\.", ""),
    (r"^(?=positional_embedding|token_embedding|ln_final|transformer\.)", "part_text."),
    (r"^paragraph_encoder\.adapter\.ls\.gamma$", "whole_text.adapter_scale"),
    (r"^paragraph_encoder\.adapter\.mlp\.", "whole_text.adapter."),
    (r"^paragraph_encoder\.", "whole_text."),
    (r"cls_embed", "cls"),
    (r"positional_embedding", "positions"),
    (r"transformer\.resblocks\.", "blocks."),
    (r"\bln_([12])\.", r"norm\1."),
    (r"ln_final", "norm"),
    (r"mlp\.c_fc|adapter\.c_fc", lambda m: m[0].replace("c_fc", "fc1")),
    (r"mlp\.c_proj|adapter\.c_proj", lambda m: m[0].replace("c_proj", "fc2")),
    (r"^image_post_coarse\.proj$", "project_image.weight"),
    (r"^image_post\.proj$", "project_fine_image.weight"),
    (r"^text_post_coarse\.proj$", "project_text.weight"),
    (r"^text_post\.proj$", "project_part_text.weight"),
]
#: Ours are computed, or belong to the superpixel network.
NOT_LOADED = r"pos_embed|pe_token|superpixel_generator|logit_|visual_proj"


@dataclass
class Golden:
    """One stored case: its tensors by key, and its hyper-parameters."""

    tensors: dict[str, Tensor]
    hyper: dict[str, Any]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose key starts with `prefix`, without it."""
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Reads a stored case such as `caft/loss_single`; skips where the reference data are not."""

    def read(case: str) -> Golden:
        path = GOLDEN / f"{case}.safetensors"
        if not path.exists():
            pytest.skip(f"no reference data at {path}; set CANOPY_SHARED")
        note = path.with_suffix(".json")
        hyper = json.loads(note.read_text()).get("hyper", {}) if note.exists() else {}
        return Golden(load_file(path), hyper)

    return read


@pytest.fixture(scope="session")
def from_published() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Renames CAFT's published parameters (or their gradients) to those of `DualEncoder`.

    Works for the whole model, for its image tower and for one pooling alike.
    """

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = {}
        blocks: dict[int, str] = {}
        depths = [1, 1, 1, 1]  # of every stored case: one block a stage
        for stage, depth in enumerate(depths):
            for place in range(depth):
                blocks[len(blocks)] = f"stages.{stage}.{place}."
        for name, tensor in state.items():
            if re.search(NOT_LOADED, name):
                continue
            transposed = re.search(r"_post(_coarse)?\.proj$", name)
            name = re.sub(
                r"^(visual\.)?blocks\.(\d+)\.", lambda m: (m[1] or "") + blocks[int(m[2])], name
            )
            for pattern, replacement in CAFT_NAMES:
                name = re.sub(pattern, replacement, name)  # type: ignore[arg-type]
            converted[name] = tensor.T if transposed else tensor
        return converted

    return convert


@pytest.fixture(scope="session")
def pooling_from_published() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The same for the parameters of attention pooling, whose projections are stored as one."""

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = {}
        for kind in ("weight", "bias"):
            parts = state[f"attn.in_proj_{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                converted[f"{name}.{kind}"] = part
                converted[f"norm_{name}.{kind}"] = state[f"ln_{name[0]}.{kind}"]
            converted[f"project.{kind}"] = state[f"attn.out_proj.{kind}"]
        return converted

    return convert


@pytest.fixture(scope="session")
def assert_gradients() -> Callable[[nn.Module, dict[str, Tensor]], None]:
    """Compares the gradients of a module's parameters with expected ones by name."""

    def check(module: nn.Module, expected: dict[str, Tensor]) -> None:
        own = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        assert own.keys() == expected.keys()
        for name, gradient in expected.items():
            # Rounding is that of the largest entry: gradients of a key's bias, say, are sums of
            # large terms that cancel.
            scale = max(1.0, gradient.abs().max().item())
            torch.testing.assert_close(
                own[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
            )

    return check
