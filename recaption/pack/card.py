"""The data card: what a folder of training shards holds and where it comes from."""

import importlib.metadata
import json
import subprocess
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.pack.buckets import SplitCounts
from recaption.pack.config import PackConfig, deciding_settings
from recaption.pack.tables import RAW, TableSource

UNKNOWN = "unknown: not given (licences=[...])"


def make_card(
    config: PackConfig,
    splits: dict[str, SplitCounts],
    reasons: Counter[str],
    notes: Counter[str],
    sources: list[TableSource],
    num_tars: int,
    num_twins: int,
) -> dict[str, Any]:
    """The content of ``data_card.json``: the same for the same input, settings and code."""
    return {
        "num_tars": num_tars,
        "splits": {split or "all": asdict(counts) for split, counts in splits.items()},
        "quarantined": dict(sorted(reasons.items())),
        "num_duplicates": num_twins,
        "notes": dict(sorted(notes.items())),
        "sources": [
            {"name": RAW, "folder": None, "model": "none: the alt texts of the web shards"},
            *(
                {"name": source.name, "folder": source.folder, **asdict(source.origin)}
                for source in sources
            ),
        ],
        "licences": list(config.licences) or [UNKNOWN],
        "seed": config.seed,
        "code": code_version(),
        "settings": deciding_settings(config),
        "input": {"shards": config.shards, "tables": config.tables},
    }


def write_card(card: dict[str, Any], folder: Path) -> None:
    (folder / "data_card.json").write_text(json.dumps(card, indent=1) + "\n")
    (folder / "data_card.md").write_text(format_card(card))


def format_card(card: dict[str, Any]) -> str:
    """``data_card.md``, of what ``data_card.json`` holds."""
    lines = [
        "# Data card",
        "",
        f"Packed from {card['num_tars']:,} tars (`{card['input']['shards']}`).",
    ]
    for split, counts in card["splits"].items():
        size = counts["num_image_bytes"] / 2**20
        num_samples = counts["num_samples"]
        lines += [
            *("", f"## Split: {split}", ""),
            f"{num_samples:,} samples, {size:,.1f} MiB of images, "
            f"{counts['num_pixels'] / max(num_samples, 1):,.0f} pixels an image on average.",
            "",
            *(
                "| source | captions | sentences | words | tokens (about) |",
                "|---|---|---|---|---|",
            ),
        ]
        for name, source in counts["sources"].items():
            lines.append(f"| {name} | " + " | ".join(f"{n:,}" for n in source.values()) + " |")
    lines += ["", "Tokens are words and marks, counted without a tokenizer.", ""]
    lines += ["## Where the captions come from", ""]
    for source in card["sources"]:
        details = [f"model `{source['model']}`"]
        details += [f"revision `{source.get('model_revision') or 'none given'}`"]
        details += [f"prompt `{source['prompt_id']}`"] if "prompt_id" in source else []
        details += [f"sampling `{source['sampling_hash']}`"] if "sampling_hash" in source else []
        lines.append(f"- **{source['name']}**: {', '.join(details)}")
    lines += ["", "## Licences and terms", "", *(f"- {text}" for text in card["licences"])]
    lines += ["", "## Left out, and noticed", ""]
    counts = {**card["quarantined"], **{f"{name} (kept)": n for name, n in card["notes"].items()}}
    lines += [f"- {name}: {count:,}" for name, count in counts.items()] or ["- nothing"]
    twins = "dropped" if card["settings"]["duplicates"] == "drop" else "kept"
    lines += [f"- images that came before, {twins}: {card['num_duplicates']:,}"]
    order = f"shuffled, seed {card['seed']}" if card["settings"]["shuffle"] else "as in the input"
    lines += ["", "## How it was made", "", f"- code: {card['code']}", f"- order: {order}"]
    lines += [f"- {name}: `{value}`" for name, value in card["settings"].items()]
    return "\n".join(lines) + "\n"


def code_version() -> str:
    """The package's version, and in a checkout its commit."""
    version = importlib.metadata.version("canopy-vlp")
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return version
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return version
    commit = result.stdout.strip()
    return f"{version} ({commit})" if commit else version
