"""Canopy's models as transformers knows models; importing this makes `AutoModel` know them.

    import pretrain.release.transformers
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(FOLDER)
    inputs = AutoProcessor.from_pretrained(FOLDER)(text=captions, images=pictures)
    scores = model(**inputs).logits_per_image

FOLDER is one of ``python -m pretrain export to=transformers``, or its name on a hub (OWNER/NAME).
`CanopyModel.from_pretrained` and `CanopyProcessor.from_pretrained` open a release as well: its
`config.json` has no `model_type`, by which `AutoModel` chooses.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    BatchFeature,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import ModelOutput

from pretrain.checkpoint import WEIGHTS
from pretrain.checksums import SUMS, check_checksums
from pretrain.config import PretrainConfig
from pretrain.data.tokens import PackedTexts, Tokenizer
from pretrain.data.transforms import evaluation_transform, normalise
from pretrain.inference import RELEASE_CONFIG, RELEASE_TOKENIZER
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.registry import build_model
from pretrain.objectives.registry import build_objective
from pretrain.release.hub import SCHEME, fetch
from pretrain.release.inputs import listed, read_captions, upright
from pretrain.release_config import read_release_config
from recaption.common.config import UserError
from recaption.common.files import atomic_write, read_json

PROCESSOR_CONFIG = "processor_config.json"
#: What says from where to take a repository: for `huggingface_hub`, not for a folder.
_OF_A_HUB = ("cache_dir", "force_download", "local_files_only", "token")
#: Keywords of transformers' processors, and their values that say what ours does.
_DONE_ANYHOW: dict[str, tuple[Any, ...]] = {
    "return_tensors": ("pt",),
    "padding": (True, "longest"),
    "truncation": (True, "longest_first"),
}


class CanopyConfig(PretrainedConfig):
    """A model's configuration.

    Args:
        canopy: all of Canopy's configuration, as the `config.json` of a release holds it.
    """

    model_type = "canopy"

    def __init__(self, canopy: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.canopy = canopy or {}

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As transformers', of a release's `config.json` as well."""
        tree, unused = super().get_config_dict(*args, **kwargs)
        if "model_type" not in tree and {"model", "objective"} <= tree.keys():
            name = tree.pop("_commit_hash", None)
            tree = {"model_type": cls.model_type, "canopy": tree, "_commit_hash": name}
        return tree, unused

    def read(self) -> PretrainConfig:
        """Raises: UserError: it holds no configuration of Canopy."""
        if not self.canopy:
            raise UserError("this CanopyConfig is empty: open one with from_pretrained(FOLDER)")
        return read_release_config(self.canopy, "config.json")


@dataclass
class CanopyOutput(ModelOutput):
    """What a model says of some images and some captions."""

    #: (number of images, number of captions) scores of the objective, higher is better.
    logits_per_image: Tensor | None = None
    #: The same, (number of captions, number of images).
    logits_per_text: Tensor | None = None
    #: (number of images, D) whole-image features of length 1.
    image_embeds: Tensor | None = None
    #: (number of captions, D) whole-caption features of length 1.
    text_embeds: Tensor | None = None


class CanopyModel(PreTrainedModel):
    """Both encoders and the score that they were trained to retrieve by."""

    config_class = CanopyConfig
    base_model_prefix = "canopy"
    main_input_name = "pixel_values"

    def __init__(self, config: CanopyConfig) -> None:
        super().__init__(config)
        canopy = config.read()
        # Named as in a checkpoint, so that a release's weights are this model's.
        self.model = build_model(canopy.model)
        self.objective = build_objective(canopy.objective, canopy.model.embed_dim)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Modules have drawn their own weights."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Path | str, *args: Any, **kwargs: Any
    ) -> Self:
        """As transformers', of a release as well.

        Raises:
            UserError: the release was changed, or a name on the hub cannot be fetched.
        """
        folder = _folder_of(pretrained_model_name_or_path, kwargs)
        _check_release(folder, RELEASE_CONFIG, WEIGHTS)
        opened: Self = super().from_pretrained(folder, *args, **kwargs)
        return opened

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) pixels of the processor -> (B, D) of whole images, not normalised."""
        return self._image(pixel_values).pooled

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Tokens of captions -> (B, D) of whole captions, not normalised.

        Args:
            input_ids: (B, K, N) int64, K texts a caption; (B, N) where a caption is one text.
            attention_mask: the same shape, 0 behind the end of a text; without one a text ends at
                the largest of its tokens.
        """
        whole = self._text(input_ids, attention_mask).whole
        assert whole is not None
        return whole

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> CanopyOutput:
        """Features of what is given; with both kinds, the scores of each pair."""
        output, images, texts = CanopyOutput(), None, None
        if pixel_values is not None:
            images = self._image(pixel_values)
            output.image_embeds = F.normalize(images.pooled, dim=1)
        if input_ids is not None:
            texts = self._text(input_ids, attention_mask)
            assert texts.whole is not None
            output.text_embeds = F.normalize(texts.whole, dim=1)
        if images is not None and texts is not None:
            output.logits_per_image = self.objective.score(images, texts)
            output.logits_per_text = output.logits_per_image.T
        return output

    def _image(self, pixel_values: Tensor) -> ImageFeatures:
        return self.model.encode_image(pixel_values)

    def _text(self, input_ids: Tensor, attention_mask: Tensor | None) -> TextFeatures:
        texts_of_caption = input_ids.shape[1] if input_ids.dim() == 3 else 1
        rows = input_ids.flatten(0, -2)
        if attention_mask is None:
            places = torch.arange(rows.shape[1], device=rows.device)
            mask = places <= rows.argmax(dim=1, keepdim=True)
        else:
            mask = attention_mask.flatten(0, -2).bool()
        offsets = F.pad(mask.sum(dim=1).cumsum(0), (1, 0))
        return self.model.encode_text(PackedTexts(rows[mask], offsets, texts_of_caption))


class CanopyProcessor(ProcessorMixin):
    """Captions and pictures -> what the model takes, as Canopy's evaluation reads them.

    Args:
        canopy: all of Canopy's configuration, as the `config.json` of a release holds it.
        bpe_path: the tokenizer's merges; those of CLIP by default.
    """

    attributes: list[str] = []  # noqa: RUF012  # as transformers declares it

    def __init__(self, canopy: dict[str, Any], bpe_path: Path | None = None, **_: Any) -> None:
        super().__init__()
        self.canopy = canopy
        self._config = read_release_config(canopy, PROCESSOR_CONFIG)
        part = self._config.model.text.part
        self.tokenizer = Tokenizer(part.context_length, bpe_path)

    @classmethod
    def from_pretrained(cls, folder: Path | str, **kwargs: Any) -> Self:
        """Opens an export for transformers, a release, or what `save_pretrained` wrote.

        A folder that a model alone was saved to has no tokenizer: CLIP's is taken. A release must
        have its own.

        Raises:
            UserError: the release was changed, or a name on the hub cannot be fetched.
        """
        folder = _folder_of(folder, kwargs)
        is_release = _check_release(folder, RELEASE_CONFIG, RELEASE_TOKENIZER)
        own = folder / PROCESSOR_CONFIG
        if not is_release and own.is_file():
            canopy = read_json(own).get("canopy")
        else:
            canopy = CanopyConfig.from_pretrained(folder).canopy
        config = read_release_config(canopy, str(folder))
        if not is_release and not (folder / RELEASE_TOKENIZER).exists():
            return cls(canopy)
        context_length = config.model.text.part.context_length
        return cls(canopy, Tokenizer.load(folder / RELEASE_TOKENIZER, context_length).path)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Image.Image | Sequence[Image.Image] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Captions and pictures as tensors; warns of texts that are longer than the model reads.

        Args:
            text: captions.
            images: pictures.
            kwargs: what other processors take. Only what asks for what is done anyhow is taken:
                `return_tensors="pt"`, `padding=True`, `truncation=True`, or None.

        Returns:
            `input_ids` and `attention_mask` (B, K, N) of captions, K texts each; `pixel_values`
            (B, 3, size, size) of pictures.

        Raises:
            UserError: a keyword asks for something else.
            ValueError: a caption is empty, or there are none.
        """
        for name, value in kwargs.items():
            if value is not None and value not in _DONE_ANYHOW.get(name, ()):
                raise UserError(
                    f"CanopyProcessor cannot do {name}={value!r}: leave it out. It pads texts to "
                    f"the longest, cuts them at the model's {self.tokenizer.context_length} tokens "
                    "and returns tensors of torch"
                )
        inputs: dict[str, Tensor] = {}
        if text is not None:
            inputs |= self._tokens(listed(text))
        if images is not None:
            pictures = listed(images)
            transform = evaluation_transform(self._config.data.image, self._config.model.image.size)
            pixels = [normalise(transform(upright(picture))) for picture in pictures]
            inputs["pixel_values"] = torch.stack(pixels)
        return BatchFeature(inputs)

    def _tokens(self, captions: Sequence[str]) -> dict[str, Tensor]:
        texts = read_captions(captions, self._config.data.captions, self.tokenizer)
        rows = [torch.tensor(self.tokenizer.encode(text)) for of_one in texts for text in of_one]
        ids = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        shape = (len(texts), -1, ids.shape[1])
        return {"input_ids": ids.view(shape), "attention_mask": mask.view(shape)}

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What it shows of itself."""
        return {"processor_class": type(self).__name__, "canopy": self.canopy}

    def save_pretrained(self, folder: Path | str, push_to_hub: bool = False, **_: Any) -> None:
        """Writes all that opens it again, alone or beside a model.

        Raises:
            UserError: it is to be sent somewhere as well.
        """
        if push_to_hub:
            raise UserError("CanopyProcessor cannot do push_to_hub: save it, and upload the folder")
        self.tokenizer.save(Path(folder) / RELEASE_TOKENIZER)
        with atomic_write(Path(folder) / PROCESSOR_CONFIG) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n")


def _folder_of(name: Path | str, options: dict[str, Any]) -> Path:
    """The folder itself, or that of a repository's files, fetched once for all that is done next.

    Args:
        name: a folder, or OWNER/NAME on a hub, with or without `hf://`.
        options: of `from_pretrained`; what says where the files are is taken out.

    Raises:
        UserError: the repository cannot be fetched.
    """
    revision, subfolder = options.pop("revision", None), options.pop("subfolder", None) or ""
    of_a_hub = {key: options.pop(key) for key in _OF_A_HUB if key in options}
    if Path(name).is_dir():
        return Path(name) / subfolder
    if subfolder:
        raise UserError(f"{name} with subfolder={subfolder}: only of a folder on this machine")
    address = str(name) if str(name).startswith(SCHEME) else f"{SCHEME}{name}"
    if not re.match(rf"{SCHEME}\w[\w.-]*/", address):
        raise UserError(f"{name} is no folder, and no OWNER/NAME of a hub")
    if revision:
        address = f"{address}@{revision}"
    return fetch(address, also=(PROCESSOR_CONFIG, "model*.safetensors*"), **of_a_hub)


def _check_release(folder: Path, *names: str) -> bool:
    """Whether it is a release, of which it compares files with their checksums.

    `export to=transformers` and `save_pretrained` write none, and the `model_type` of transformers;
    a folder with checksums is compared whatever it says.

    Raises:
        UserError: a file was changed, or there is no list of checksums.
    """
    config = folder / RELEASE_CONFIG
    says_type = config.is_file() and "model_type" in read_json(config)
    is_release = (folder / SUMS).is_file() or (config.is_file() and not says_type)
    if is_release:
        check_checksums(folder, names)
    return is_release


def register() -> None:
    """Tells transformers' `Auto` classes; done when this module is imported."""
    AutoConfig.register(CanopyConfig.model_type, CanopyConfig, exist_ok=True)
    AutoModel.register(CanopyConfig, CanopyModel, exist_ok=True)
    AutoProcessor.register(CanopyConfig, CanopyProcessor, exist_ok=True)


register()
