"""Retrieval on held-out samples while a run trains.

A validation changes nothing of the training: it draws nothing at random from torch's generators,
moves no running statistics and does not touch the stream. The set is cut into the same batches
whatever the number of ranks, which take turns, so that the figures are the same, too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from pretrain.data.tokens import PackedTexts, Tokenizer
from pretrain.data.transforms import evaluation_transform, normalise
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.ranks import Ranks
from pretrain.evaluate.contrast import retrieval_loss
from pretrain.evaluate.retrieval import retrieval
from pretrain.evaluate.scores import score_columns
from pretrain.metrics.log import METRICS, read_validations
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.preemption import StopRequest
from recaption.common.config import ConfigError, check_at_least

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig
    from pretrain.metrics.run import RunMetrics
    from pretrain.trained_module import TrainedModule

_SCORE_BLOCK = 256  # texts that a batch's images are scored with at once


@dataclass
class ValidationConfig:
    every: int = 0  # steps between two validations; after the last step, too; 0: never
    data: str = ""  # folder of MDS shards, packed from samples that are not trained on
    num_samples: int = 500  # the first so many samples of the set that have a caption
    source: str = ""  # which captions; empty: the longest of each sample
    batch_size: int = 32  # images encoded at once; the loss is that of such a batch alone

    def __post_init__(self) -> None:
        check_at_least(0, {"validation.every": self.every})
        for name in ("num_samples", "batch_size"):
            check_at_least(1, {f"validation.{name}": getattr(self, name)})
        if self.every and not self.data:
            raise ConfigError(
                f"validation.every={self.every} needs samples: give validation.data=FOLDER, or "
                "every=0 for no validation"
            )


@dataclass(frozen=True)
class _Batch:
    number: int  # among the batches of the set
    images: Tensor  # (B, 3, H, W) uint8
    texts: PackedTexts


class Validation:
    """Retrieval with the weights of a moment, on all ranks together.

    Every rank makes one, which holds its share of the set, and makes the same calls.

    Args:
        config: of the run.
        tokenizer: of the run's texts.
        ranks: this rank and the others.
        stop_request: abandons a validation as soon as it is set on any rank.

    Raises:
        UserError: the shards cannot be read, or no sample has a caption of the source wanted.
    """

    def __init__(
        self,
        config: "PretrainConfig",
        tokenizer: Tokenizer,
        ranks: Ranks,
        stop_request: StopRequest,
    ) -> None:
        self.was_abandoned = False
        self._config, self._last_step = config.validation, config.train.num_steps
        self._metrics = Path(config.run) / METRICS
        self._ranks, self._stop_request = ranks, stop_request
        self._batches: list[_Batch] = []
        self._num_samples = self._num_batches = 0
        if self._config.every:
            self._read(config, tokenizer)

    def is_due(self, step: int) -> bool:
        """Whether the weights after so many steps are to be validated."""
        every = self._config.every
        return every > 0 and step > 0 and (step % every == 0 or step == self._last_step)

    def is_missing(self, step: int) -> bool:
        """Whether that was due and is not in the run's metrics: a stop may have cut it short."""
        if not self.is_due(step):
            return False
        is_missing = self._ranks.is_first and all(
            row["step"] != step for row in read_validations(self._metrics)
        )
        return self._ranks.any(is_missing)

    def run(
        self, step: int, engine: Engine, module: "TrainedModule", metrics: "RunMetrics"
    ) -> None:
        """Measures and tells, unless a stop comes in between; the module ends in training mode."""
        module.eval()
        try:
            with metrics.watch("validate"):
                figures = self._measure(engine, module)
        finally:
            module.train()
        self.was_abandoned = figures is None
        if figures is not None:
            metrics.validation(step, figures)
        elif self._ranks.is_first:
            print(
                f"validation after step {step} abandoned for the stop; the next attempt makes it",
                flush=True,
            )

    @torch.no_grad()
    def _measure(self, engine: Engine, module: "TrainedModule") -> dict[str, float] | None:
        """Figures by name on the first rank, none on the others; None where a stop came."""
        device = self._ranks.device
        images: list[ImageFeatures] = []
        texts: list[TextFeatures] = []
        losses = []
        for batch in self._batches:
            if self._ranks.any(bool(self._stop_request)):
                return None
            pixels = normalise(batch.images.to(device))
            image, text = engine.forward(pixels, batch.texts.to(device))
            generator = torch.Generator().manual_seed(batch.number)
            terms = module.objective(image, text, Exchange.alone(), generator)
            losses.append(self._gathered(torch.stack(list(terms.values())).sum()[None]))
            images.append(image.to("cpu"))  # tokens of a whole set would fill a GPU
            texts.append(text.map(self._gathered))
        every_text = TextFeatures.concatenate(texts)[: self._num_samples]
        rows = []
        for image in images:
            if self._ranks.any(bool(self._stop_request)):
                return None
            columns = score_columns(module.objective, image.to(device), every_text, _SCORE_BLOCK)
            score = next(iter(columns.values()))  # the one that the objective retrieves by
            of_ranks = self._gathered(score.to(device))
            if self._ranks.is_first:
                rows.append(of_ranks.cpu())
        if not self._ranks.is_first:
            return {}
        scores = torch.cat(rows)[: self._num_samples]
        found = retrieval(scores)
        figures = {"num_images": float(self._num_samples)}
        figures["retrieval_loss"] = retrieval_loss(scores)
        figures["loss"] = torch.cat(losses)[: self._num_batches].mean().item()
        for way, recall in (("t2i", found.text_to_image), ("i2t", found.image_to_text)):
            figures |= {f"{way}_r1": recall.r1, f"{way}_r5": recall.r5, f"{way}_r10": recall.r10}
        return figures

    def _read(self, config: "PretrainConfig", tokenizer: Tokenizer) -> None:
        """Decodes this rank's share.

        Round by round each rank takes the next batch; all batches are of one size, for which the
        last takes samples from the front again, and ranks without a batch take the last one, too:
        what is computed twice is dropped when it is gathered.
        """
        # Imported late: they know the run's configuration, and need the streaming library.
        from pretrain.evaluate.examples import choose_examples, read_pictures

        folder = Path(self._config.data)
        examples = choose_examples(
            folder, config, self._config.source, self._config.num_samples
        ).examples
        self._num_samples = len(examples)
        size = min(self._config.batch_size, len(examples))
        self._num_batches = -(-len(examples) // size)
        num_rounds = -(-self._num_batches // self._ranks.world_size)
        numbers = [
            min(number * self._ranks.world_size + self._ranks.rank, self._num_batches - 1)
            for number in range(num_rounds)
        ]
        places = [
            [(number * size + place) % len(examples) for place in range(size)] for number in numbers
        ]
        wanted = sorted({place for some in places for place in some})
        transform = evaluation_transform(config.data.image, config.model.image.size)
        pixels = {
            wanted[position]: transform(picture)
            for position, picture in read_pictures(folder, [examples[x] for x in wanted])
        }
        self._batches = [
            _Batch(
                number,
                torch.stack([pixels[place] for place in some]),
                tokenizer.pack([examples[place].texts for place in some]),
            )
            for number, some in zip(numbers, places, strict=True)
        ]

    def _gathered(self, own: Tensor) -> Tensor:
        """(B, ...) of this rank -> (W B, ...) of all ranks."""
        of_ranks = own.new_empty(self._ranks.world_size * len(own), *own.shape[1:])
        dist.all_gather_single(of_ranks, own.contiguous())
        return of_ranks
