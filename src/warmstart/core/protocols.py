"""What every plug-in family must offer. Shapes: B batch, T tokens, D features, C classes, N examples.

A part is one file ``parts/<family>/<name>.py`` with a one-line docstring, one frozen dataclass ``Options`` and one class ``Part``
that takes an ``Options`` and obeys its family's protocol below. ``warmstart.testing`` checks that it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from warmstart.core.report import Metric

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from warmstart.engine import learner
    from warmstart.engine.draft import Table
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.network import Network
    from warmstart.engine.workbench import Workbench

Input: TypeAlias = tuple[Any, ...]
"""One raw example: a tuple with one entry per role of the modality, e.g. ``("a sentence",)`` or ``(first, second)``."""

Encoded: TypeAlias = Mapping[str, "NDArray[Any]"]
"""One example as named arrays without padding, e.g. ``{"input_ids": (T,)}``, or uint8 ``{"pixels": (H, W, 3)}``."""

Reference: TypeAlias = "tuple[Tensor, Tensor | None]"
"""What a state dict gives for a batch: the mean over its last state (B, D), and the logits (B, C) of its head, where it has one."""

Link = Literal["softmax", "sigmoid"]


@runtime_checkable
class Modality(Protocol):
    """Turns one raw input into named arrays, and collates them."""

    name: str
    roles: tuple[str, ...]
    default_backbone: str | None
    """The body that is used where none is named; None: there is none, and only rungs without a body are climbed."""
    objective: str
    """How a body goes on learning from unlabelled inputs, where nothing else is asked for."""
    unit: str
    """What lengths of inputs are counted in, in a report: tokens, pixels, ms."""

    def read(self, source: Any, *, skip_bad: bool) -> Table | None:
        """``source`` as a table where only this modality knows how (a folder of images), or None: tables are read without it."""
        ...

    def matches(self, columns: Mapping[str, Sequence[Any]], *, folder: Path) -> bool:
        """Whether a column holds this modality's inputs; relative paths in it are relative to ``folder``."""
        ...

    def load(self, values: Sequence[Input], *, folder: Path, body: Path | None) -> list[Input]:
        """Inputs as they stand in a table (a path, bytes, an array) to inputs as they are used: read and decoded, once.

        One that cannot be read stays in its place, and ``check`` says why. ``body`` is the folder of the body that they are for, so that
        nothing larger than it takes is kept.
        """
        ...

    def infer(self, columns: Mapping[str, Sequence[Any]], given: Mapping[str, str]) -> dict[str, str]:
        """Which column plays which role; ``given`` (role -> column) is kept, the rest is inferred."""
        ...

    def check(self, values: Sequence[Any]) -> str | None:
        """Why one raw input cannot be used ("empty text"), or None when it can."""
        ...

    def notes(self, values: Sequence[Input]) -> list[str]:
        """Sentences about usable inputs that a person should know of ("3 of 80 recordings are silent"); empty where there are none."""
        ...

    def content(self, value: Input) -> bytes:
        """Canonical bytes of one input: equal inputs have equal bytes (hashed by the activation store)."""
        ...

    def show(self, value: Input) -> str:
        """The input as a person reads it in a report."""
        ...

    def where(self, value: Input) -> str:
        """The file that an input came from, or what else tells it apart in an error; empty where its row says enough."""
        ...

    def picture(self, value: Input) -> str:
        """The input as a small picture for a report: a data URI of at most ten kilobytes, or empty.

        A modality that can be heard also has ``sound(value, seconds)``: its beginning as a small data URI, or empty.
        """
        ...

    def extent(self, value: Input) -> float | None:
        """The length of an input in ``unit``, or None where only an encoder can tell."""
        ...

    def encoder(self, folder: Path, max_length: int) -> Encoder:
        """The preprocessing that belongs to the backbone in ``folder``; inputs are cut to ``max_length`` tokens."""
        ...

    def featurizer(self, options: Mapping[str, Any]) -> Featurizer:
        """Unfitted features of the classic rung."""
        ...

    def load_featurizer(self, folder: Path) -> Featurizer:
        """The features that ``Featurizer.save`` wrote."""
        ...


class Encoder(Protocol):
    """A backbone's own preprocessing: a tokenizer, or resizing and normalisation."""

    fingerprint: str
    max_length: int
    """Size of the longest example it makes: as asked for, or less where the body takes no more."""

    def size(self, example: Encoded) -> int:
        """What an example costs the body, in tokens: its length, or for an image the number of 16x16 patches. Batches are cut by it."""
        ...

    def encode(self, values: Sequence[Input]) -> list[Encoded]:
        """One ragged example per input."""
        ...

    def collate(self, examples: Sequence[Encoded], *, length: int = 0) -> dict[str, Tensor]:
        """The batch as the body takes it by keyword (``input_ids (B, T)``, ``pixel_values (B, C, H, W)``), floating types in float32.

        Ragged examples are padded to the longest or to ``length`` (a ``size``), with an ``attention_mask`` where the body takes one.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the files that ``AutoTokenizer`` or ``AutoImageProcessor.from_pretrained(folder)`` reads."""
        ...


class Featurizer(Protocol):
    """Hand-made features of the classic rung: fitted on training inputs, saved without pickles."""

    def fit(self, values: Sequence[Input]) -> Any:
        """Learn vocabulary or statistics, and return the features of ``values``: (N, F), sparse or dense."""
        ...

    def transform(self, values: Sequence[Input]) -> Any:
        """Features (N, F)."""
        ...

    def save(self, folder: Path) -> None:
        """Write safetensors + JSON."""
        ...


@runtime_checkable
class Task(Protocol):
    """What is asked: target type, loss, metrics, decoding.

    A task may also have ``balance(targets, n_classes) -> engine.balance.Balance``, what each training row counts where classes are rare,
    and ``balance_note(targets, labels) -> str``, what the report says of that.
    """

    name: str
    link: Link
    main_metric: str
    hf_problem_type: str

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether these raw values of a label column look like this task's targets."""
        ...

    def check(self, value: Any) -> str | None:
        """Why one raw label cannot be used ("missing label"), or None when it can."""
        ...

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        ...

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[Any]:
        """Targets: (N,) int64 class indices for softmax, (N, C) float32 zeros and ones for sigmoid."""
        ...

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """How many rows carry each label that is not among ``labels``: what ``encode`` cannot express."""
        ...

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Mean loss over the batch, of rows that count as ``weights (B,)`` say; logits (B, C) in float32."""
        ...

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C)."""
        ...

    def decode(self, probabilities: NDArray[np.float64], labels: Sequence[str]) -> list[Any]:
        """The predicted label of each row: a string, or a list of strings for multi-label."""
        ...

    def scores(self, probabilities: NDArray[np.float64], targets: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) per-example contribution to the main metric, whose value is their mean (accuracy: 0 or 1)."""
        ...

    def metrics(self, probabilities: NDArray[np.float64], targets: NDArray[Any], *, seed: int) -> dict[str, Metric]:
        """Every metric of the task, each with a 95 % interval."""
        ...


@runtime_checkable
class BackboneSource(Protocol):
    """Where pre-trained bodies come from."""

    def find(self, name: str) -> Path | None:
        """The folder (Hugging Face format, safetensors) that ``name`` means to this source, or None if it is not this source's.

        Raises BackboneNotFound when the name is this source's but the body is not usable, and says how to get it.
        """
        ...

    def known(self) -> dict[str, Path | None]:
        """Names that this source could offer here without any network, and where each lies (None: not installed)."""
        ...


@runtime_checkable
class Importer(Protocol):
    """Plain state dicts of a family of architectures, and the bodies that they become. ``engine.importing`` checks every conversion."""

    name: str
    architectures: tuple[str, ...]
    """What ``--as`` may name."""
    modality: str
    task: str
    """What its classifier answers."""
    head: tuple[str, ...]
    """The tensors of the classifier, which a state dict may lack."""
    small: Mapping[str, Any]
    """Sizes of a small network, for the contract check."""

    def names(self, architecture: str) -> dict[str, str]:
        """Every tensor of the state dict, and its name in ``build(...).state_dict()``."""
        ...

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Widths that differ between networks of this architecture, from shapes in the state dict (all names are there)."""
        ...

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """The network with fresh weights: a classifier of transformers and no head, or a body of our own and a pooled head.

        Without classes (0) it has no head. What ``names`` does not mention keeps the value that it has here.
        """
        ...

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A random batch of two, as the body takes it."""
        ...

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """What the state dict gives for a batch, by a forward pass of its own that shares nothing with the body's."""
        ...

    def save(self, folder: Path) -> None:
        """Write what turns raw inputs into batches, beside the body's ``config.json``."""
        ...


class Predictor(Protocol):
    """Inputs to logits: what a strategy fits, and what a model folder holds."""

    def logits(self, values: Sequence[Input], *, quiet: bool = True) -> NDArray[np.float32]:
        """(N, C); with a progress bar unless ``quiet``."""
        ...

    def save(self, folder: Path, *, labels: Sequence[str], temperature: float) -> None:
        """Write weights as safetensors + JSON, with logits divided by ``temperature`` from now on."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """One rung of the ladder."""

    name: str
    order: int
    """Place on the ladder: cheaper rungs first."""
    serve_cost: float
    """Relative cost of one prediction: 0 nothing runs, 1 the whole body runs."""
    worth: int
    """Which rungs to keep when time is short: lower first; 0 is always climbed."""

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        """What one ``fit`` shall do to stay within ``seconds``, and what that is predicted to take; None where nothing useful fits.

        Raises:
            CutRefused: The strategy cannot work on this body at all.
        """
        ...

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        """Learn from the rows ``train`` of the bench and predict the rows ``held`` (which may be empty)."""
        ...


@runtime_checkable
class Objective(Protocol):
    """How a body learns from unlabelled or labelled data before the task."""

    name: str
    modalities: tuple[str, ...]
    """What it can learn from; the first is the default."""

    def prepare(self, setting: learner.Setting) -> Learner:
        """Read the data, decide what the size or the budget asks for, and build what is trained.

        Raises:
            InputError: The data or an option is wrong.
            BudgetTooSmall: Nothing useful fits into the time.
        """
        ...


class Learner(Protocol):
    """A body, its data and its loss, as the one training loop of the engine drives them.

    Everything random follows from ``(seed, phase, step)``: the loop seeds torch before ``learn``, and ``batch`` must depend on nothing
    else. So a resumed run needs only parameters, optimiser state and the number of the step to go on to the same bits.
    """

    settings: dict[str, Any]
    """Plain JSON values that decide every bit, with the seed; given back in ``Setting.settings`` they make the same learner."""
    plan: learner.Plan
    corpus: learner.Corpus
    watches: bool
    """Whether a leap of the loss means that training has gone wrong; a loss that is no mean of independent terms may leap."""
    shards: bool
    """Whether ``learn`` does nothing with ``module`` but call it, equally often in all processes: then each may hold a part of it.

    A module that does not call its blocks may have ``call_blocks()``, after which it does.
    """

    @property
    def module(self) -> nn.Module:
        """All that is trained, in float32. What a resumed run needs (parameters, running statistics, persistent chains) is in its state."""
        ...

    def phases(self) -> Sequence[learner.Phase]:
        """The stretches of training, in order; at least one."""
        ...

    def begin(self, phase: int) -> None:
        """Called once when a phase begins, never when one is resumed: a place to start parameters from those of earlier phases."""
        ...

    def groups(self, phase: int) -> Sequence[learner.Group]:
        """The parameters of ``module`` that this phase moves."""
        ...

    def batch(self, phase: int, step: int) -> Any:
        """This process's share of the batch of a step, on the device; together the shares are the same for any number of processes."""
        ...

    def count(self, batch: Any) -> int:
        """How many items of the plan's unit are in this share."""
        ...

    def learn(self, module: nn.Module, phase: int, batch: Any) -> dict[str, Tensor]:
        """Add the gradients of the batch's loss to the parameters of ``module``; gives ``{"loss": ..., what else is worth a curve}``.

        ``module`` is ``self.module`` or a copy of it in a lower precision. The mean of the gradients over all processes must be the
        gradient of the whole batch's loss; values are detached scalars.
        """
        ...

    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Measures on held-out data, at least ``{"loss": ...}``; in evaluation mode and without gradients."""
        ...

    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """Measures at the end, each with a 95 % interval, at least ``validation_loss``."""
        ...

    def pictures(self, module: nn.Module) -> Sequence[learner.Picture]:
        """What is worth looking at: reconstructions, filters, samples; may be empty."""
        ...

    def samples(self, module: nn.Module) -> Sequence[str]:
        """Texts worth reading; may be empty."""
        ...

    def save(self, folder: Path) -> None:
        """Write the body that ``adapt`` starts from, with its tokenizer or preprocessing, as ``store.load_body`` opens it."""
        ...
