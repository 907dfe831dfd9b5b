"""Tests with tensors: `torch_or_skip()` before importing what needs torch.

`make test` installs a build of torch for the CPU; an environment without one skips these tests with the
reason, and fails where `MEMOS_TESTS_REQUIRE_SERVICES` is set.
"""

from __future__ import annotations

import importlib.util
import os

import pytest


def torch_or_skip() -> None:
    """Skip the module that calls this at its top, unless torch and transformers are installed."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
        pytest.skip(f"not installed: {', '.join(missing)} (see TORCH in Makefile)", allow_module_level=True)
    import torch

    torch.set_num_threads(1)
