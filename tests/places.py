"""Where things lie that tests read, and what is skipped where they are absent."""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIGS = CHECKOUT / "configs"
#: Reference tensors and real data, not part of the repository.
SHARED = Path(os.environ.get("CANOPY_SHARED", CHECKOUT.parent / "shared"))
RECAPTION_PYTHON = CHECKOUT / ".venv-recaption" / "bin" / "python"

needs_recaption_environment = pytest.mark.skipif(
    not RECAPTION_PYTHON.exists(), reason="needs .venv-recaption: make env"
)
