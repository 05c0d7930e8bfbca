"""What a machine computes in."""

from __future__ import annotations

import pytest
import torch

from warmstart.core.errors import BadOption
from warmstart.engine import device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "adapted", "native", "expected"),
    [
        ("auto", "bfloat16", True, torch.bfloat16),
        ("auto", "bfloat16", False, torch.float32),
        ("auto", "float32", True, torch.float32),
        ("bfloat16", "float32", False, torch.bfloat16),
    ],
)
def test_a_saved_body_is_served_as_adapted_unless_that_is_emulated(
    monkeypatch: pytest.MonkeyPatch, precision: str, adapted: str, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda _: native)
    assert device.served(precision, adapted, CPU) == expected


def test_other_precisions_are_refused() -> None:
    with pytest.raises(BadOption, match="precision 'float16'"):
        device.served("float16", "float32", CPU)
