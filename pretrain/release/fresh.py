"""Opens a release in a process of its own, which has none of the libraries that training needs.

``python -m pretrain.release.fresh FOLDER`` is that process.
"""

import json
import subprocess
import sys
from pathlib import Path

from recaption.common.config import JSON_FLAG, run_command

#: Modules that opening a release does without: of what the extra `train` has and `inference` has
#: not, of what captioning needs, and of what tools use.
TRAINING_LIBRARIES = {
    *("deepspeed", "streaming", "submitit", "tensorboard", "vllm"),
    *("matplotlib", "pandas", "pycocotools", "scipy", "skimage"),
    *("prometheus_client", "py3langid", "pyarrow", "rensa", "webdataset"),
}


def refuse_training_libraries() -> None:
    """Makes this process take them as not installed."""
    assert not TRAINING_LIBRARIES & sys.modules.keys()
    # So Python writes down that a module is not there.
    sys.modules.update(dict.fromkeys(TRAINING_LIBRARIES))  # type: ignore[arg-type]


def open_in_fresh_process(folder: Path) -> dict[str, float]:
    """Has a release check its files and its sample outputs.

    Returns:
        the largest difference of each output.

    Raises:
        RuntimeError: it does not open, or gives something else.
    """
    command = [sys.executable, "-m", "pretrain.release.fresh", str(folder), JSON_FLAG]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the release does not open in a fresh process:\n{done.stderr}")
    differences: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return differences


def main(argv: list[str]) -> None:
    refuse_training_libraries()
    from pretrain.release.sample import main as check  # after they are refused

    check(argv)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
