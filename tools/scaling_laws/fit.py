"""``python -m tools.scaling_laws fit table=RESULTS.csv [output=FOLDER] [--json]``

Fits how loss and error fall with compute, and with size and samples; predicts runs that were held
out, says what a budget is used best for, and compares two methods at equal compute. Prints a table
and writes fit.json, which ``report`` draws. Published tables are read as they are, such as

    table=zeroshot_results.csv where.downstream_dataset=imagenet1k
    table=results.parquet where.downstream_dataset=imagenet1k where.epoch==total_epochs
        where.lr_scheduler=cosine
    table=mine.csv columns.flops='forward_gmacs * 6e9' columns.error='1 - top1 * 0.01'
"""

import json
import math
from pathlib import Path

from recaption.common.config import (
    ConfigError,
    check_at_least,
    check_choice,
    load_config,
    nearest_name,
    print_json,
    to_dict,
)
from recaption.common.errors import UserError
from recaption.common.files import atomic_write, sha256_file
from recaption.common.progress import Progress
from tools.scaling_laws.columns import FORMATS, TARGETS
from tools.scaling_laws.compare import Comparison, Contender, compare_laws
from tools.scaling_laws.group import LAWS, FitConfig, fit_group
from tools.scaling_laws.matched import match_runs
from tools.scaling_laws.results import FitResult, GroupFit
from tools.scaling_laws.table import Table, read_table
from tools.scaling_laws.terminal import format_result

FIT = "fit.json"
_SIZES = ("params", "params_image", "params_text", "flops_per_sample")


def main(argv: list[str]) -> None:
    config = load_config(FitConfig, argv, __doc__)
    result = fit_table(config)
    output = Path(config.output or Path(config.table.split(",")[0]).parent)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / FIT) as path:
        path.write_text(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    print(format_result(result))
    print_json(argv, result.to_dict())


def fit_table(config: FitConfig) -> FitResult:
    """Fits each law to each target of each method.

    Raises:
        UserError: see ``read_table``; a law that was asked for by name, or any law, cannot be
            fitted to any method.
    """
    _check(config)
    table = read_table(
        config.table,
        config.format,
        config.columns,
        config.where,
        needed_columns(config.targets, config.laws, config.joint_size),
        config.by,
    )
    groups = table.groups(config.by)
    pair = _pair(config, groups)
    targets = config.targets or [target for target in TARGETS if target in table.numbers]
    for target in targets:
        if target not in table.numbers:
            raise UserError(f"{table.path} has no {target}: give columns.{target}=NAME")
    if math.isfinite(config.holdout_above) and table.numbers["flops"].max() <= config.holdout_above:
        raise UserError(
            f"holdout_above={config.holdout_above:g}: no point of {table.path} is above it; the "
            f"largest has {table.numbers['flops'].max():.4g} training FLOPs"
        )
    fits: list[GroupFit] = []
    contenders: dict[tuple[str, str], dict[str, Contender]] = {}
    parts = [(name, group, target) for name, group in groups.items() for target in targets]
    with Progress(len(parts), "fits", "fitting") as progress:
        for number, (name, group, target) in enumerate(parts):
            fit, contenders[name, target] = fit_group(config, name, group, target, number)
            fits.append(fit)
            progress.advance(note=f"{name} {target}")
    _check_fitted(table, fits, config.laws)
    comparisons, not_compared = _compare(config, pair, targets, contenders)
    matched = [
        match_runs(
            (pair[0], pair[1]), groups[pair[0]], groups[pair[1]], config.by, target, config.level
        )
        for target in (targets if pair else [])
    ]
    settings = to_dict(config)
    if math.isinf(config.holdout_above):
        settings["holdout_above"] = None  # JSON has no infinity
    return FitResult(
        table=config.table,
        table_sha256=[sha256_file(path) for path in config.table.split(",")],
        format=table.format,
        columns={name: str(expression) for name, expression in table.mapping.items()},
        num_rows=len(table),
        left_out=table.left_out,
        unfinished=table.unfinished,
        unreadable=table.unreadable,
        settings=settings,
        groups=fits,
        comparisons=comparisons,
        not_compared=not_compared,
        matched=[each for each in matched if each],
    )


def needed_columns(targets: list[str], laws: list[str], joint_size: str) -> set[str]:
    """Columns of numbers that the laws are fitted to; all targets and laws if none is named."""
    needed = {"flops", *(targets or TARGETS)}
    if "joint" in (laws or LAWS):
        needed |= {joint_size, "samples"}
    return needed


def _check(config: FitConfig) -> None:
    check_choice("format", config.format, ("auto", *FORMATS))
    check_choice("fit_on", config.fit_on, ("auto", "front", "all"))
    check_choice("joint_size", config.joint_size, _SIZES)
    check_choice("compare_by", config.compare_by, ("auto", *LAWS))
    for target in config.targets:
        check_choice("targets", target, TARGETS)
    for law in config.laws:
        check_choice("laws", law, LAWS)
    check_at_least(20, {"num_replicates": config.num_replicates})
    check_at_least(0, {"seed": config.seed})
    for key in ("bins_per_decade", "huber_delta", "holdout_above"):
        if not getattr(config, key) > 0:
            raise ConfigError(f"{key}={getattr(config, key)}: it must be above 0")
    for key in ("bins_per_decade", "huber_delta"):
        if math.isinf(getattr(config, key)):
            raise ConfigError(f"{key}={getattr(config, key)}: it must be a finite number")
    for budget in config.budgets:
        if not 0 < budget < math.inf:
            raise ConfigError(f"budgets has {budget}: training FLOPs must be above 0")
    if not 0 < config.level < 1:
        raise ConfigError(f"level={config.level}: it must be between 0 and 1, such as 0.9")
    if config.compare and (len(config.compare) != 2 or len(set(config.compare)) != 2):
        raise ConfigError(f"compare={config.compare}: it must be two different methods")


def _pair(config: FitConfig, groups: dict[str, Table]) -> list[str]:
    """The two to compare; none if there are not two and nobody asked."""
    for name in config.compare:
        if name not in groups:
            guess = nearest_name(name, groups)
            raise UserError(
                f"compare: {config.table} has no {config.by} {name!r}, only "
                f"{', '.join(groups)}" + (f"; did you mean {guess!r}?" if guess else "")
            )
    return config.compare or (list(groups) if len(groups) == 2 else [])


def _check_fitted(table: Table, fits: list[GroupFit], asked: list[str]) -> None:
    """Raises: UserError: nothing was fitted, or nothing of what was asked for by name."""
    fitted = {law.law for fit in fits for law in fit.laws}
    for law in asked or LAWS:
        if law not in fitted and (asked or not fitted):
            reason = next(fit.not_fitted[law] for fit in fits if law in fit.not_fitted)
            raise UserError(f"{table.path}: {reason}")


def _compare(
    config: FitConfig,
    pair: list[str],
    targets: list[str],
    contenders: dict[tuple[str, str], dict[str, Contender]],
) -> tuple[list[Comparison], dict[str, str]]:
    """The comparisons, and why one was not made that nobody asked for by name."""
    comparisons: list[Comparison] = []
    not_compared: dict[str, str] = {}
    for target in targets if pair else []:
        first, second = (contenders[name, target] for name in pair)
        by = (config.compare_by,) if config.compare_by != "auto" else LAWS
        both = [law for law in by if law in first and law in second]
        # The best at each compute against runs as they are would favour the best.
        law = next((law for law in both if first[law].points & second[law].points), None)
        try:
            if law is None and both:
                raise UserError(
                    f"compare: one L(C) of {target} is of the front and the other of all runs; "
                    "fit_on=all makes them alike"
                )
            if law is None:
                missing = pair[0] if not set(by) & first.keys() else pair[1]
                raise UserError(f"compare: {missing} has no fitted {' or '.join(by)} of {target}")
            comparisons.append(compare_laws(first[law], second[law], target, law, config.level))
        except UserError as error:
            if config.compare:
                raise
            not_compared[f"{pair[0]} against {pair[1]}, {target}"] = str(error)
    return comparisons, not_compared
