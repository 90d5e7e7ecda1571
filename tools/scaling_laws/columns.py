"""What the columns of a results table are called, in Canopy's tables and in published ones.

A column is read by an expression ``[1 -] NAME [* FACTOR]``: ``gmacs_total * 6e9`` are training
FLOPs of a column of forward GMACs, ``1 - acc1`` is an error. FLOPs are training FLOPs everywhere:
three times the forward pass (one forward, two backward), two FLOPs a multiply-accumulate.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from recaption.common.config import ConfigError, check_choice, nearest_name

#: Columns of numbers; the unit of each stands in ``docs/scaling_laws.md``.
NUMBERS = (
    *("params_image", "params_text", "params", "forward_macs_per_sample", "flops_per_sample"),
    *("samples", "unique_samples", "batch", "lr", "flops", "gpu_hours", "samples_per_second"),
    *("loss", "error"),
)
#: Columns of text. Rows of one ``run`` (branches of a trunk) are resampled together.
TEXTS = ("name", "model", "method", "data", "seed", "status", "run", "hardware")
TARGETS = ("loss", "error")

#: Canopy's name -> how a published table has it. A column that a table lacks is left out.
FORMATS: dict[str, dict[str, str]] = {
    "canopy": {name: name for name in (*TEXTS, *NUMBERS)},
    # zeroshot_results.csv of github.com/LAION-AI/scaling-laws-openclip (Cherti et al. 2022,
    # arXiv 2212.07143): forward GMACs of one sample, and times the samples seen.
    "openclip": {
        "name": "name",
        "model": "arch",
        "data": "upstream_dataset",
        "flops": "gmacs_total * 6e9",
        "flops_per_sample": "gmacs * 6e9",
        "samples": "samples_seen",
        "error": "1 - acc1",
    },
    # results of github.com/LAION-AI/scaling-laws-for-comparison (openCLIP, openMaMMUT, CoCa,
    # SigLIP; Nezhurina et al. 2025, arXiv 2506.04598), joined with its model_profile.csv:
    # forward GFLOPs, two a multiply-accumulate.
    "comparison": {
        "name": "name",
        "model": "model",
        "method": "namespace",
        "data": "pretrain_dataset",
        "params": "mparams * 1e6",
        "params_image": "image_mparams * 1e6",
        "params_text": "text_mparams * 1e6",
        "flops": "gflops_total * 3e9",
        "flops_per_sample": "gflops * 3e9",
        "samples": "total_samples_seen",
        "batch": "global_batch_size",
        "lr": "lr",
        "loss": "contrastive_loss",
        "error": "1 - acc1",
    },
}
#: Says of which test a row is.
TASK = "downstream_dataset"
#: Columns in which rows of one run differ, with what there is to say on how to choose.
CHOICES = {
    TASK: "",
    "epoch": " (where.epoch==total_epochs: the last of each run; where.epoch==epoch: all)",
    "lr_scheduler": " (or by=lr_scheduler: each apart)",
}

#: Together only ``run`` writes these: the error of such a table is 1 - R@1.
_LADDERS = {"run", "unique_samples", "gpu_hours", "samples_per_second"}

_EXPRESSION = re.compile(
    r"(?P<one>1\s*-\s*)?(?P<name>.+?)(?:\s*\*\s*(?P<factor>[\d.]+(?:[eE][+-]?\d+)?))?"
)


@dataclass(frozen=True)
class Expression:
    """``[1 -] NAME [* FACTOR]``, the factor first."""

    column: str
    factor: float = 1.0
    is_complement: bool = False

    @classmethod
    def parse(cls, text: str, header: Collection[str]) -> Self:
        """A text that is itself a column's name is that column, whatever signs it has."""
        text = text.strip()
        match = _EXPRESSION.fullmatch(text)
        if text in header or match is None:
            return cls(text)
        return cls(match["name"], float(match["factor"] or 1), match["one"] is not None)

    def __str__(self) -> str:
        factor = f" * {self.factor:g}" if self.factor != 1 else ""
        return f"{'1 - ' if self.is_complement else ''}{self.column}{factor}"

    def of(self, value: float) -> float:
        value *= self.factor
        return 1 - value if self.is_complement else value


def map_columns(
    header: Collection[str], format_name: str, overrides: dict[str, str], where: str
) -> tuple[str, dict[str, Expression]]:
    """The format, and each of Canopy's columns that the table has with how it is read.

    Args:
        header: names of the table's columns.
        format_name: one of ``FORMATS``, or ``auto`` for the first that has compute and a target.
        overrides: Canopy's name -> expression; they win.
        where: names the table in errors.

    Raises:
        ConfigError: compute, or both targets, or a column of an override are missing.
    """
    check_choice("format", format_name, ("auto", *FORMATS))
    given = {}
    for name, text in overrides.items():
        if name not in FORMATS["canopy"]:
            guess = nearest_name(name, FORMATS["canopy"])
            hint = f"did you mean {guess!r}?" if guess else f"choose of {', '.join(NUMBERS)}"
            raise ConfigError(f"columns.{name}: there is no such column; {hint}")
        given[name] = Expression.parse(text, header)
        if given[name].column not in header:
            raise ConfigError(f"columns.{name}={text}: " + lacks(where, given[name].column, header))
    for candidate in FORMATS if format_name == "auto" else (format_name,):
        parsed = {name: Expression.parse(text, header) for name, text in FORMATS[candidate].items()}
        mapping = {n: e for n, e in parsed.items() if e.column in header} | given
        has_compute = "flops" in mapping or {"flops_per_sample", "samples"} <= mapping.keys()
        if has_compute and any(target in mapping for target in TARGETS):
            return candidate, mapping
    wanted = FORMATS["canopy" if format_name == "auto" else format_name] | overrides
    has_compute = Expression.parse(wanted["flops"], header).column in header
    missing = "error" if has_compute else "flops"
    column = Expression.parse(wanted[missing], header).column
    raise ConfigError(
        f"{lacks(where, column, header)}; name the column that has it, as in "
        f"columns.{missing}=" + ("'gmacs_total * 6e9'" if missing == "flops" else "'1 - acc1'")
    )


def is_of_a_ladder(mapping: dict[str, Expression]) -> bool:
    """Whether ``run`` wrote the table, by what stands in it and how its error is read."""
    return mapping.keys() >= _LADDERS and str(mapping.get("error")) == "error"


def labels_of(mapping: dict[str, Expression], where: dict[str, str]) -> dict[str, str]:
    """What each target is, to be written beside its figures."""
    error = "error"
    if is_of_a_ladder(mapping):
        error = "error, 1 - R@1"
    elif "error" in mapping and str(mapping["error"]) != "error":
        error = f"error, {mapping['error']}"
    task = f" ({where[TASK]})" if TASK in where else ""
    return {"loss": "held-out loss", "error": error + task}


def lacks(where: str, column: str, header: Collection[str]) -> str:
    """Says that a column is missing, and which is nearest."""
    guess = nearest_name(column, header)
    hint = f"the nearest is {guess!r}" if guess else f"it has {', '.join(map(repr, header))}"
    return f"{where} has no column {column!r}; {hint}"
