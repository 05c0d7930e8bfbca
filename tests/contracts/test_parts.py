"""Every part in the registry passes its family's contract, and the contract catches what breaks it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from warmstart import testing
from warmstart.core import registry

PARTS = [(family, name) for family in registry.families() for name in registry.parts(family)]


@pytest.mark.parametrize(("family", "name"), PARTS, ids=[f"{family}-{name}" for family, name in PARTS])
def test_part(family: str, name: str) -> None:
    testing.check_part(family, name)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("Predict every class as often as it occurs: the floor below which nothing has been learned.", "", "begins with one line"),
        ('name = "majority"', 'name = "minority"', "that of its file"),
        ("@dataclass(frozen=True)\nclass Options", "@dataclass\nclass Options", "frozen dataclass"),
        ("    worth = 0\n", "", "core.protocols.Strategy"),
        ("import numpy as np\n", "import numpy as np\nimport torch\n", "no framework"),
        ("/ np.float32(temperature)", "", "divides the logits by the temperature"),
        ("MajorityPredictor(row.astype", "MajorityPredictor((row + np.random.rand()).astype", "every bit"),
        ("np.tile(self.row, (", "np.tile(self.row + 1, (", "predicts what fit says"),
        ("return Plan({}, 0.0)", "return Plan({}, 3.0)", "no plan where there is no time"),
    ],
    ids=lambda text: text.strip()[:30],
)
def test_a_broken_part_is_caught(old: str, new: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(registry.module("strategies", "majority").__file__).read_text()
    assert source.count(old) == 1, source
    (tmp_path / "strategies").mkdir()
    module = tmp_path / "strategies" / "majority.py"
    module.write_text(source.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = registry._read("strategies", "majority", "strategies.majority")
    parts = registry.parts
    monkeypatch.setattr(registry, "parts", lambda family: {"majority": found} if family == "strategies" else parts(family))
    monkeypatch.delitem(sys.modules, "strategies.majority", raising=False)
    monkeypatch.delitem(sys.modules, "strategies", raising=False)
    with pytest.raises(AssertionError, match=wanted):
        testing.check_part("strategies", "majority")
