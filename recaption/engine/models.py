"""Models by folder or by name, and what tells two contents of a folder apart."""

import hashlib
from pathlib import Path

from recaption.common.config import UserError
from recaption.common.files import sha256_file, sha256_of_samples

TINY_LVLM = Path(__file__).resolve().parents[1] / "tiny_lvlm"
#: Of larger weight files only pieces enter a folder's fingerprint.
MAX_HASHED_BYTES = 256 * 2**20
#: Files of a model's folder that decide nothing.
NOT_OF_THE_MODEL = ("*.md", "LICENSE*", ".*", "*.png", "*.jpg")


def resolve_model(name: str) -> Path | str:
    """The folder of a local model, or the name of one on the hub as it is."""
    folder = TINY_LVLM if name == TINY_LVLM.name else Path(name)
    if not folder.is_dir():
        if folder == TINY_LVLM or name.startswith((".", "/", "~")):
            raise UserError(f"engine.vllm.model: no folder {folder}")
        return name
    if not (folder / "config.json").is_file():
        raise UserError(f"engine.vllm.model: {folder} holds no config.json, so it is no model")
    return folder


def fingerprint_folder(folder: Path) -> str:
    """12 hex digits of the names and contents of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if any(path.match(pattern) for pattern in NOT_OF_THE_MODEL):
            continue
        is_large = path.stat().st_size > MAX_HASHED_BYTES
        content = sha256_of_samples(path) if is_large else sha256_file(path)
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()[:12]
