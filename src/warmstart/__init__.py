"""Start every machine-learning project from a pre-trained model, and know whether it helped.

    model = warmstart.adapt("reviews.csv", budget="5m", out="reviews-model")
    model.predict(["not bad at all"])
    model = warmstart.load("reviews-model")

Importing the package imports no framework: each name below is resolved when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warmstart.api import adapt, import_weights, load, pretrain
    from warmstart.core import errors
    from warmstart.core.report import PretrainReport, Report
    from warmstart.engine.model import Model

__all__ = ["Model", "PretrainReport", "Report", "__version__", "adapt", "errors", "import_weights", "load", "pretrain"]

_PLACES = {
    "adapt": "warmstart.api",
    "import_weights": "warmstart.api",
    "load": "warmstart.api",
    "pretrain": "warmstart.api",
    "Model": "warmstart.engine.model",
    "Report": "warmstart.core.report",
    "PretrainReport": "warmstart.core.report",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("warmstart")
    if name == "errors":
        return import_module("warmstart.core.errors")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'warmstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
