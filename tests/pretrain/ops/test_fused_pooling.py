import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import CHECKOUT


def test_the_kernels_in_the_interpreter() -> None:
    """In a process of its own: Triton reads once, when it is imported, that it is to interpret."""
    pytest.importorskip("triton")
    tests = Path(__file__).with_name("interpreted_fused_pooling.py")
    command = [sys.executable, "-m", "pytest", str(tests)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 6
