"""open_clip's description of a model and of its pictures, and ours: read in both directions."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from open_clip import CLIPTextCfg, CLIPVisionCfg, get_model_config
from open_clip import list_models as open_clip_names

from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from pretrain.models.image.vit import VitConfig
from pretrain.models.registry import ImageConfig, ModelConfig, TextConfig
from pretrain.models.text.part import PartTextConfig
from recaption.common.config import ConfigError, UserError, nearest_name
from recaption.common.files import below_home, read_json

#: open_clip's field -> ours, of a `VitConfig`.
_VISION = {
    "width": "width",
    "layers": "depth",
    "patch_size": "patch_size",
    "mlp_ratio": "mlp_ratio",
}
#: open_clip's field -> ours, of a `PartTextConfig`.
_TEXT = {
    "width": "width",
    "heads": "num_heads",
    "layers": "num_layers",
    "context_length": "context_length",
    "vocab_size": "vocab_size",
}
#: What is read by a rule of its own; and what changes training alone, or how numbers are returned.
_VISION_RULES = ("image_size", "head_width", "no_ln_pre", "norm_kwargs")
_NO_MATTER = ("patch_dropout", "output_tokens", "pos_embed_type")
_PAIR = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
_STARTS = ("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale")

#: The description in a folder, and the beginning of such a folder's name.
CONFIG = "open_clip_config.json"
_LOCAL = "local-dir:"

_NORM_EPS = 1e-5  # of open_clip's LayerNorms, where its configuration does not say


def named_model(name: str) -> ModelConfig:
    """The model that open_clip knows by a name (`ViT-B-32`), or from a folder (`local-dir:...`).

    Raises:
        UserError: there is none, or it has parts that ours lack.
    """
    if name.startswith(_LOCAL):
        path, tree = _read_local(name)
        return from_open_clip(tree.get("model_cfg", tree), str(path))
    try:
        found = get_model_config(name)
    except (OSError, ValueError) as error:
        raise UserError(f"architecture={name}: {error}") from None
    if found is None:
        guess = nearest_name(name, open_clip_names())
        hint = f"did you mean {guess}?" if guess else "see open_clip.list_models()"
        raise UserError(f"open_clip has no architecture {name}; {hint}")
    return from_open_clip(found, f"architecture {name}")


def from_open_clip(description: dict[str, Any], where: str) -> ModelConfig:
    """open_clip's `model_cfg` as our configuration.

    Args:
        description: keys and values of its `CLIP`.
        where: names it, in errors.

    Raises:
        ConfigError: names the first setting that our plain towers do not have, that is missing or
            of another type.
    """
    _check_mapping(where, "model_cfg", description)
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in description:
            raise ConfigError(f"{where}: there is no {key}, which every model of open_clip has")
    vision, text = description["vision_cfg"], description["text_cfg"]
    for key in ("vision_cfg", "text_cfg"):
        _check_mapping(where, key, description[key])
    _check_number(where, "embed_dim", description["embed_dim"], int)
    for key, value in description.items():
        if key not in (*_PAIR, *_STARTS) and value:
            raise ConfigError(f"{where}: {key}={value} is not supported")
    _refuse_others(vision, CLIPVisionCfg, (*_VISION, *_VISION_RULES, *_NO_MATTER), where)
    _refuse_others(text, CLIPTextCfg, (*_TEXT, *_NO_MATTER), where)
    of_image, of_text = CLIPVisionCfg(**vision), CLIPTextCfg(**text)
    norm = of_image.norm_kwargs or {}
    _check_mapping(where, "vision_cfg.norm_kwargs", norm)
    if not isinstance(of_image.layers, int) or not isinstance(of_image.image_size, int):
        raise ConfigError(f"{where}: only vision transformers of square images are supported")
    if not norm.keys() <= {"eps"}:
        raise ConfigError(f"{where}: norm_kwargs={norm}: only eps is supported")
    for key, part in (("vision_cfg", of_image), ("text_cfg", of_text)):
        for name in ("head_width", "image_size", *_VISION) if part is of_image else _TEXT:
            kind = float if name == "mlp_ratio" else int
            _check_number(where, f"{key}.{name}", getattr(part, name), kind)
    _check_number(where, "vision_cfg.norm_kwargs.eps", norm.get("eps", _NORM_EPS), float)
    activation = "quick_gelu" if description.get("quick_gelu") else "gelu"
    vit = VitConfig(
        **{own: getattr(of_image, name) for name, own in _VISION.items()},
        num_heads=of_image.width // of_image.head_width,
        pool="cls",
        pre_norm=not of_image.no_ln_pre,
        patch_bias=False,
        norm_eps=norm.get("eps", _NORM_EPS),
        activation=activation,
    )
    part = PartTextConfig(
        **{own: getattr(of_text, name) for name, own in _TEXT.items()}, activation=activation
    )
    return ModelConfig(
        embed_dim=description["embed_dim"],
        image=ImageConfig(name="vit", size=of_image.image_size, vit=vit),
        text=TextConfig(name="plain", part=part),
    )


def to_open_clip(model: ModelConfig) -> dict[str, Any]:
    """Our configuration as open_clip's `model_cfg`; a bias of the patches is not part of it.

    Raises:
        ConfigError: says why open_clip has no such model.
    """
    vit, part = model.image.vit, model.text.part
    if model.image.name != "vit":
        raise ConfigError(
            f"open_clip cannot hold model.image.name={model.image.name}: it knows one grid of "
            "patches, and neither superpixels nor poolings that merge them; export "
            "to=torch_export or to=transformers"
        )
    if model.text.name != "plain":
        raise ConfigError(
            f"open_clip cannot hold model.text.name={model.text.name}: it reads a caption as one "
            "text and has no encoder of the whole from its parts; export to=torch_export or "
            "to=transformers"
        )
    if vit.pool != "cls":
        raise ConfigError(
            f"open_clip cannot hold model.image.vit.pool={vit.pool}: its transformers have a class "
            "token even where they pool the others; export to=torch_export or to=transformers"
        )
    if vit.activation != part.activation:
        raise ConfigError(
            "open_clip cannot hold two activations: model.image.vit.activation is "
            f"{vit.activation}, model.text.part.activation {part.activation}"
        )
    vision: dict[str, Any] = {name: getattr(vit, own) for name, own in _VISION.items()}
    if vit.width % vit.num_heads:
        raise ConfigError(f"{vit.num_heads} heads do not divide model.image.vit.width={vit.width}")
    vision |= {"image_size": model.image.size, "head_width": vit.width // vit.num_heads}
    if not vit.pre_norm:
        vision["no_ln_pre"] = True
    if vit.norm_eps != _NORM_EPS:
        vision["norm_kwargs"] = {"eps": vit.norm_eps}
    description: dict[str, Any] = {
        "embed_dim": model.embed_dim,
        "vision_cfg": vision,
        "text_cfg": {name: getattr(part, own) for name, own in _TEXT.items()},
    }
    if vit.activation == "quick_gelu":
        description["quick_gelu"] = True
    return description


def preprocessing(resize: str) -> dict[str, Any]:
    """open_clip's `preprocess_cfg` for pictures that are resized as `data.image.resize` says."""
    return {
        "mean": list(IMAGE_MEAN),
        "std": list(IMAGE_STD),
        "interpolation": "bicubic",
        "resize_mode": resize,
    }


def named_resize(name: str) -> str | None:
    """How the folder of a name `local-dir:FOLDER` has pictures resized; None if it does not say.

    Raises:
        ConfigError: it prepares pictures in another way than ours.
    """
    if not name.startswith(_LOCAL):
        return None
    path, tree = _read_local(name)
    given = tree.get("preprocess_cfg", {})
    _check_mapping(str(path), "preprocess_cfg", given)
    resize: str | None = given.get("resize_mode")
    for key, value in preprocessing(resize or "").items():
        if key in given and given[key] != value:
            raise ConfigError(f"{name}: {key}={given[key]} is not supported, only {value}")
    if resize not in (None, "squash", "shortest"):
        raise ConfigError(f"{name}: resize_mode={resize} is not supported")
    return resize


def _read_local(name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a name `local-dir:FOLDER`, and what it holds.

    Raises:
        UserError: there is none, or it holds something else.
    """
    path = below_home(name.removeprefix(_LOCAL)) / CONFIG
    if not path.is_file():
        raise UserError(f"architecture={name}: there is no {path}")
    tree = read_json(path)
    _check_mapping(str(path), "the file", tree)
    return path, tree


def _check_mapping(where: str, key: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key} must hold keys and values, not {value!r}")


def _check_number(where: str, key: str, value: Any, kind: type[int] | type[float]) -> None:
    """Raises: ConfigError: it is no number above 0; JSON's 4 will do for 4.0."""
    if isinstance(value, bool) or not isinstance(value, int | kind) or not value > 0:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{where}: {key}={value!r}: it must be {what} above 0")


def _refuse_others(
    given: dict[str, Any], schema: type, supported: Collection[str], where: str
) -> None:
    """Raises ConfigError for a setting that is not supported and not at open_clip's default."""
    defaults = {field.name: field.default for field in dataclasses.fields(schema)}
    for key, value in given.items():
        if key not in defaults:
            raise ConfigError(f"{where}: this version of open_clip knows no setting {key}")
        if key not in supported and value != defaults[key]:
            raise ConfigError(
                f"{where}: {key}={value} is not supported; Canopy's plain transformers can be "
                "imported, with class token, learned positions and causal text"
            )
