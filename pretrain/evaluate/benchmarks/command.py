"""Evaluates a model on published benchmarks: `results.json`, a table, a page to look at."""

import sys
import time
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.choosing import Chosen, choose, read_again, remember
from pretrain.evaluate.benchmarks.compared import Compared, alike, named_apart, read_compared
from pretrain.evaluate.benchmarks.page import PAGE, write_page
from pretrain.evaluate.benchmarks.results import Results
from pretrain.evaluate.benchmarks.table import CHANCE, format_results, headline
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.encoders import Encoders, NoMapsError
from pretrain.evaluate.loading import load_encoders, output_folder
from pretrain.evaluate.provenance import describe_code, describe_libraries, describe_machine
from pretrain.evaluate.sharing import is_first, of_first, rank_and_size, shared_by_ranks
from recaption.common.config import ConfigError, print_json


def run_benchmarks(config: EvaluateConfig, argv: list[str]) -> None:
    """Every benchmark that is asked for; results are written after each.

    On several ranks (torchrun, srun) all of them make this call, and the first writes.
    """
    with shared_by_ranks():
        _run(config, argv)


def _run(config: EvaluateConfig, argv: list[str]) -> None:
    chosen = choose(config)
    compared = read_compared(config.compare)
    output = output_folder(config)
    # Roots are read first: a wrong layout is told before a model is loaded, or others are scored.
    sets = {one.key: (one.root, one.read(config.allow_missing)) for one in chosen}
    encoders = load_encoders(config)
    if encoders.name == CHANCE:
        raise ConfigError(f"a model called {CHANCE} cannot be told from it in tables: give name=")
    compared = named_apart(encoders.name, compared)
    header = {
        "model": {"name": encoders.name, **encoders.describe()},
        "code": describe_code(),
        "libraries": describe_libraries(),
        "batch_size": config.batch_size,
    }
    if is_first():
        output.mkdir(parents=True, exist_ok=True)
    results = Results(output, header) if is_first() else None
    if results:
        with results.alone():
            remember(config, chosen, output)
    for one in chosen:
        _, data = sets[one.key]
        described = one.describe(data) if results else {}
        if of_first(results is not None and results.has(one.key, described)):
            if results:
                print(f"{one.title} was evaluated before: its figures are kept")
            continue
        started = time.monotonic()
        try:
            figures = one.benchmark.evaluate(data, encoders, config.batch_size)
        except NoMapsError as error:  # on all ranks alike
            if len({one.benchmark.name for one in chosen}) == 1:
                raise
            if results:
                print(f"warning: {one.title} is left out: {error}", file=sys.stderr)
                results.leave_out(one.key, str(error))
        else:
            if results:
                took = {
                    "seconds": round(time.monotonic() - started, 1),
                    "machine": describe_machine(num_ranks=rank_and_size()[1]),
                }
                results.put(one.key, described | {"figures": figures} | took)
    if results:
        _tell(results, compared, chosen, sets, encoders, output, config, argv)


def _tell(
    results: Results,
    compared: list[Compared],
    chosen: list[Chosen],
    sets: dict[str, tuple[Path, Any]],
    encoders: Encoders,
    output: Path,
    config: EvaluateConfig,
    argv: list[str],
) -> None:
    """The table, and the page to look at."""
    for moved in results.moved:
        print(f"results of another model, code, libraries or batch size were there: now {moved}")
    page = None
    with results.alone():
        tree = results.tree
        remembered = remember(config, chosen, output)  # with what others have added meanwhile
        others = {key: alike(key, one, compared) for key, one in tree["benchmarks"].items()}
        if config.report:
            sets = sets | read_again(tree["benchmarks"], sets, remembered)
            page = write_page(tree, others, sets, encoders, output, config.num_pictures)
    print(format_results(tree, others))
    print(f"\nwritten: {results.path}" + (f", {page}" if page else ""))
    if page is None and (output / PAGE).exists():
        print(f"{output / PAGE} is of an earlier command: report=true writes it anew")
    written = {"results": str(results.path), "report": str(page) if page else None}
    headlines = {key: headline(result) for key, result in tree["benchmarks"].items()}
    print_json(argv, {"benchmarks": headlines} | written)
