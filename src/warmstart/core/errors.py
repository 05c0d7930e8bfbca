"""Every error that warmstart raises on purpose.

WarmstartError
├── InputError (exit 2: what was given is wrong)
│   ├── FileNotFound      no such file or folder
│   ├── FileUnreadable    wrong encoding, delimiter, format, or damaged
│   ├── ColumnNotFound    no such column in a table
│   ├── DataError         the rows cannot be learned from as they are
│   ├── FolderExists      the output is there already
│   ├── UnknownPart       no plug-in of that name
│   ├── BadOption         an option, recipe key or value that does not exist
│   ├── BackboneNotFound  a pre-trained body that is not here
│   ├── NotAModel         a folder that warmstart did not write, or did not finish
│   ├── DamagedModel      a model folder whose files do not match their hashes
│   └── BudgetTooSmall    nothing useful fits into the budget
└── RunError (exit 1: the input was fine, the run failed)
    ├── DiskFull          no space left while writing
    ├── MissingLibrary    an optional dependency is not installed
    ├── CutRefused        prefix + tail does not equal the whole model
    ├── TrainingFailed    the loss is not finite
    └── OutOfTime         the budget ended in the middle of a rung
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WarmstartError(Exception):
    """An error in three sentences: what was given, what was expected, what to do now."""

    exit_code = 1

    def __init__(self, given: str, expected: str = "", do: str = "") -> None:
        self.given, self.expected, self.do = given, expected, do
        super().__init__(given, expected, do)

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        expected = self.expected.strip()
        if expected and not expected.lower().startswith(("expected", "known")):
            expected = f"expected {expected}"
        sentences = [self.given.strip(), *(s[0].upper() + s[1:] for s in (expected, self.do.strip()) if s)]
        return " ".join(s if s[-1] in ".?!" else f"{s}." for s in (" ".join(s.split()) for s in sentences if s))

    def as_dict(self) -> dict[str, str]:
        """The error as the ``--json`` contract prints it."""
        return {"kind": self.kind, "given": self.given, "expected": self.expected, "do": self.do}


class InputError(WarmstartError):
    """What the user gave is wrong; nothing was started."""

    exit_code = 2


class FileNotFound(InputError):
    """No such file or folder."""


class FileUnreadable(InputError):
    """The file is there but cannot be read as what it seems to be."""


class ColumnNotFound(InputError):
    """The table has no such column."""


class DataError(InputError):
    """The rows cannot be learned from as they are."""


class FolderExists(InputError):
    """The output folder is there already; nothing is overwritten without ``--force``."""


class UnknownPart(InputError):
    """No plug-in of that name."""


class BadOption(InputError):
    """An option, recipe key or value that does not exist."""


class BackboneNotFound(InputError):
    """A pre-trained body that is not on this machine, or not in a safe format."""


class NotAModel(InputError):
    """A folder that warmstart did not write, or did not finish."""


class DamagedModel(InputError):
    """A file of a model folder does not match the hash in its card."""


class BudgetTooSmall(InputError):
    """Not even the cheapest rung fits into the budget."""


class RunError(WarmstartError):
    """The input was fine, the run failed."""


class DiskFull(RunError):
    """No space left while writing."""


class MissingLibrary(RunError):
    """An optional dependency is not installed."""


class CutRefused(InputError):
    """The body does not bear what was asked of it: it cannot be trained, or prefix + tail does not equal the whole model."""


class TrainingFailed(RunError):
    """The loss is no longer finite."""


class OutOfTime(RunError):
    """The budget ended in the middle of a rung."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'lora'?"`` when a known name is close to ``name``, else an empty string."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[c]) for c in close)}?" if close else ""
