"""Answers to rows: the filters' verdicts, and the score of image and caption where it is wanted."""

import asyncio
from collections.abc import Mapping, Sequence

from PIL import Image

from recaption.engine import CaptionAnswer
from recaption.engine.encoding import EncodedImage
from recaption.filters import CaptionFilter, FilterConfig, ImageTextScorer, near_duplicates
from recaption.prepare import PreparedSample
from recaption.prompts import PromptConfig
from recaption.sentences import split_sentences
from recaption.table import CaptionRow

_NEAR_DUPLICATE = "near-duplicate"


class Judge:
    """Makes a row of each answer.

    Args:
        config: the filters.
        prompts: what was asked, by its id.

    Raises:
        UserError: the model that scores image and caption cannot be loaded.
    """

    def __init__(self, config: FilterConfig, prompts: Mapping[str, PromptConfig]) -> None:
        self._filters = {
            name: CaptionFilter(config, (prompt.text, prompt.text_without_alt_text, prompt.system))
            for name, prompt in prompts.items()
        }
        self._scores = (
            Scores(ImageTextScorer(config.image_text)) if config.image_text.model else None
        )

    @property
    def sees_images(self) -> bool:
        return self._scores is not None

    async def judge(
        self, sample: PreparedSample, prompt_id: str, answer: CaptionAnswer
    ) -> tuple[CaptionRow, list[str]]:
        """The row, and what is to be noted about it."""
        if answer.failure is not None:
            row = CaptionRow(sample.key, sample.sha256, prompt_id, "failed", answer.failure)
            return row, []
        verdict = self._filters[prompt_id].judge(answer.caption, answer.finish_reason)
        reason = verdict.reason
        if reason is None and self._scores is not None and sample.image is not None:
            image = sample.image
            picture = image.decode() if isinstance(image, EncodedImage) else image
            reason = await self._scores.reject_reason(picture, verdict.caption)
        sentences = answer.sentences
        if sentences is None or verdict.raw_caption is not None:
            sentences = split_sentences(verdict.caption)
        row = CaptionRow(
            key=sample.key,
            sha256=sample.sha256,
            prompt_id=prompt_id,
            status="ok" if reason is None else "rejected",
            reason=reason,
            caption=verdict.caption,
            raw_caption=verdict.raw_caption,
            sentences=sentences,
            num_tokens=answer.num_tokens,
            finish_reason=answer.finish_reason,
        )
        return row, list(verdict.notes)


class Scores:
    """Scores pairs in batches of what waits, in a thread, while the engine goes on."""

    def __init__(self, scorer: ImageTextScorer) -> None:
        self._scorer = scorer
        self._waiting: list[tuple[Image.Image, str, asyncio.Future[float]]] = []
        self._task: asyncio.Task[None] | None = None

    async def reject_reason(self, image: Image.Image, caption: str) -> str | None:
        score: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, caption, score))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._score_what_waits())
        return self._scorer.reject_reason(await score)

    async def _score_what_waits(self) -> None:
        while self._waiting:
            size = self._scorer.config.batch_size
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            images, captions, futures = zip(*batch, strict=True)
            try:
                scores = await asyncio.to_thread(self._scorer.score, images, captions)
            except Exception as error:
                for future in futures:
                    future.set_exception(error)
                continue
            for future, score in zip(futures, scores, strict=True):
                future.set_result(score)


def mark_near_duplicates(
    rows: Sequence[CaptionRow], config: FilterConfig, are_new: Sequence[bool]
) -> None:
    """Rejects new rows of a table whose captions resemble many others of the same prompt.

    Args:
        rows: all of the table.
        config: the filters.
        are_new: of each row, whether it is; others keep their verdicts, and are compared with.
    """
    by_prompt: dict[str, list[tuple[CaptionRow, bool]]] = {}
    for row, is_new in zip(rows, are_new, strict=True):
        if row.status == "ok" or (row.reason or "").startswith(_NEAR_DUPLICATE):
            by_prompt.setdefault(row.prompt_id, []).append((row, is_new))
    for fit in by_prompt.values():
        reasons = near_duplicates([row.caption for row, _ in fit], config.near_duplicates)
        for (row, is_new), reason in zip(fit, reasons, strict=True):
            if is_new and reason is not None:
                row.status, row.reason = "rejected", reason
