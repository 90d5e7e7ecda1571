"""What holds for every test: none of them changes what the next one finds."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gives the environment back as the test found it.

    A command that a test calls in this process tells its libraries who it is through the
    environment (`announce_rank`): jobs that a later test submits would inherit that. This is no
    fixture, as those of a module or a session may call commands, too.
    """
    before, folder = dict(os.environ), Path.cwd()
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(folder)
