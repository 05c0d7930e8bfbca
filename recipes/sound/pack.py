"""A body that ``warmstart pretrain`` left, as it is shipped: weights in float16, its configuration, and the recipe that made it.

python recipes/sound/pack.py BODY src/warmstart/embedded/soundnet
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from warmstart.engine import store


def main(body: Path, out: Path) -> None:
    """Write ``out``; its README is written by hand."""
    tensors = {name: value.half() for name, value in store.read_tensors(body / "model.safetensors").items()}
    store.write_tensors(out / "model.safetensors", tensors)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(body / name, out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
