"""What open_clip builds, and how it wants pictures: by name and published tag, or by a file."""

import json
import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image

from pretrain.evaluate.offline import hub_offline
from recaption.common.config import ConfigError, UserError, nearest_name
from recaption.common.files import read_json, sha256_file

PREFIX = "open_clip:"
#: The tag of weights that nobody published: open_clip's own defaults.
NO_TAG = "none"
#: The description in a folder of open_clip's own layout, which is called after the folder.
FOLDER_CONFIG = "open_clip_config.json"

_PARTS = {"embed_dim", "vision_cfg", "text_cfg"}
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Architecture:
    """A model of open_clip that can be built."""

    name: str  # in tables and errors
    registered: str  # what open_clip has it under
    preprocess: dict[str, Any]  # settings of `PreprocessCfg` other than open_clip's defaults
    quick_gelu: bool
    tag: str = ""
    config: Path | None = None  # the file that describes it


@dataclass(frozen=True)
class Built:
    """What `build` returns: a model without weights, and what makes its inputs."""

    model: Any
    tokenizer: Any
    preprocess: Any  # an RGB picture -> (3, size, size) pixels


def find_architecture(model: str, tag: str = "") -> Architecture:
    """Looks up a name that open_clip knows, or the JSON file of a configuration.

    The pictures that a model wants, and its activation, belong to published weights, not to the
    architecture. Those of `tag` are taken; without one, those that all weights of the architecture
    were published with, or open_clip's defaults if there are none.

    Raises:
        UserError: an unknown name or tag, a file that describes no model; or no tag, where it
            makes a difference.
    """
    if model.endswith(".json"):
        if tag:
            raise ConfigError(f"tag={tag} says nothing to a model that {model} describes")
        return _from_file(Path(model))
    description = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if description is None:
        near = nearest_name(model, open_clip.list_models())
        hint = f": did you mean {near}?" if near else "; open_clip.list_models() names them"
        raise UserError(f"model={PREFIX}{model}: open_clip has no such model{hint}")
    settings = _tagged_settings(model, tag) if tag else _common_settings(model)
    # As in open_clip, a configuration's QuickGELU is not taken back by a tag.
    quick_gelu = settings.pop("quick_gelu", False) or description.get("quick_gelu", False)
    return Architecture(model, model, settings, quick_gelu, tag)


def build(architecture: Architecture) -> Built:
    """Builds the model with random weights. Nothing is fetched, no code but the library's is run.

    Raises:
        UserError: open_clip cannot build it, or needs files that are not on this machine.
    """
    name, text = architecture.name, open_clip.get_model_config(architecture.registered)["text_cfg"]
    try:
        with hub_offline(), _weights_come_later():
            safe = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = open_clip.get_tokenizer(
                architecture.registered, **(safe if text.get("hf_tokenizer_name") else {})
            )
            model: Any = open_clip.create_model(
                architecture.registered,
                load_weights=False,
                pretrained_image=False,
                pretrained_text=False,
                force_quick_gelu=architecture.quick_gelu,
                force_preprocess_cfg=architecture.preprocess,
            )
        used = PreprocessCfg(**model.visual.preprocess_cfg)
        preprocess = image_transform_v2(used, is_train=False)
        preprocess(Image.new("RGB", (8, 8)))
    except Exception as error:  # torch, timm, transformers, tokenizers: all have their own
        named = {str(text[k]) for k in ("hf_tokenizer_name", "hf_model_name") if text.get(k)}
        of_hub = sorted(source for source in named if not Path(source).is_dir())
        if isinstance(error, OSError) and of_hub:
            raise UserError(
                f"{name} needs {' and '.join(of_hub)} of the model hub, which this machine has no "
                f"copy of, and nothing is fetched: run `hf download {of_hub[0]}` where there is a "
                "network"
            ) from None
        raise UserError(f"open_clip cannot build {name}: {in_one_line(error)}") from None
    return Built(model, tokenizer, preprocess)


@contextmanager
def _weights_come_later() -> Iterator[None]:
    """Keeps open_clip from warning that the model is a random one."""

    def is_needed(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    logger = logging.getLogger()  # open_clip has none of its own
    logger.addFilter(is_needed)
    try:
        yield
    finally:
        logger.removeFilter(is_needed)


def in_one_line(error: Exception) -> str:
    """The beginning of what an error says, or its name if it says nothing."""
    said = textwrap.shorten(str(error), 300, placeholder=" ...")
    return said or type(error).__name__


def _from_file(path: Path) -> Architecture:
    if not path.is_file():
        raise UserError(f"model={PREFIX}{path}: there is no such file")
    content = read_json(path)
    description = content.get("model_cfg", content) if isinstance(content, dict) else None
    if (
        not isinstance(description, dict)
        or not description.keys() >= _PARTS
        or not isinstance(description["vision_cfg"], dict)
        or not isinstance(description["text_cfg"], dict)
    ):
        raise UserError(
            f"{path} is no model configuration of open_clip: it must hold embed_dim, vision_cfg "
            "and text_cfg, at the top or under model_cfg"
        )
    preprocess = content.get("preprocess_cfg", {})
    if not isinstance(preprocess, dict):
        raise UserError(f"{path}: preprocess_cfg must hold keys and values")
    text = description["text_cfg"]
    if text.get("hf_tokenizer_name") and (path.parent / "tokenizer_config.json").is_file():
        text["hf_tokenizer_name"] = str(path.parent)
    return Architecture(
        path.resolve().parent.name if path.name == FOLDER_CONFIG else path.stem,
        _register(description, sha256_file(path)),
        _picture_settings(preprocess),
        bool(description.get("quick_gelu")),
        config=path,
    )


def _register(description: dict[str, Any], sha256: str) -> str:
    """Under a name of its own: files of one name, or of a known architecture's, are kept apart."""
    name = f"canopy-{sha256}"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.json"
        path.write_text(json.dumps(description))
        open_clip.add_model_config(path)
    return name


def _tagged_settings(model: str, tag: str) -> dict[str, Any]:
    if tag == NO_TAG:
        return {}
    found = open_clip.get_pretrained_cfg(model, tag)
    if found:
        return _settings(found)
    tags = open_clip.list_pretrained_tags_by_model(model)
    near = nearest_name(tag, tags)
    if not tags:
        hint = "no weights of it are: leave tag out"
    elif near:
        hint = f"did you mean {near}?"
    else:
        hint = f"it has {_listed(tags)}"
    raise UserError(f"tag={tag}: open_clip knows no such weights of {model}; {hint}")


def _common_settings(model: str) -> dict[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(model)
    of_tag = {tag: _settings(open_clip.get_pretrained_cfg(model, tag)) for tag in tags}
    kinds: list[dict[str, Any]] = []
    for settings in of_tag.values():
        if settings not in kinds:
            kinds.append(settings)
    if len(kinds) <= 1:
        return kinds[0] if kinds else {}
    differing = [key for key in kinds[0] if any(kind[key] != kinds[0][key] for kind in kinds)]
    groups = []
    for kind in kinds:
        members = [tag for tag in tags if of_tag[tag] == kind]
        shown = ", ".join(f"{key}={kind[key]}" for key in differing)
        groups.append(f"{_listed(members)} ({shown})")
    raise UserError(
        f"model={PREFIX}{model}: its published weights differ in what they want; give tag=NAME of "
        f"yours, or tag={NO_TAG} for open_clip's defaults if you trained them: {'; '.join(groups)}"
    )


def _settings(published: dict[str, Any]) -> dict[str, Any]:
    return {
        **_picture_settings(published),
        "quick_gelu": bool(published.get("quick_gelu", False)),
    }


def _picture_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Settings of `PreprocessCfg` among others; the size is the model's, as in open_clip."""
    settings: dict[str, Any] = merge_preprocess_dict({}, given)
    settings.pop("size", None)
    return settings


def _listed(tags: list[str]) -> str:
    rest = len(tags) - _NAMES_SHOWN
    return ", ".join(tags[:_NAMES_SHOWN]) + (f" and {rest} others" if rest > 0 else "")
