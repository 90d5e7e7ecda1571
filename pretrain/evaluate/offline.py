"""Libraries that would look things up on the model hub, kept from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import reset_sessions
from transformers.utils import hub


@contextmanager
def hub_offline() -> Iterator[None]:
    """huggingface_hub and transformers read their caches alone, as with HF_HUB_OFFLINE=1.

    Each of them reads that variable once, when it is imported.
    """
    before = constants.HF_HUB_OFFLINE, hub._is_offline_mode
    constants.HF_HUB_OFFLINE = hub._is_offline_mode = True
    reset_sessions()  # one that is open would still connect
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, hub._is_offline_mode = before
        reset_sessions()
