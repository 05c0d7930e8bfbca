"""What the rungs of one run share: the rows, the backbone, and states that are computed once and read from the activation store."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from warmstart.core.errors import CutRefused, DiskFull, OutOfTime
from warmstart.core.protocols import Encoded, Encoder, Input, Modality, Task
from warmstart.engine import activations, batches, cut, network
from warmstart.engine import backbone as backbones
from warmstart.engine.activations import Key
from warmstart.engine.backbone import Backbone
from warmstart.engine.balance import Balance
from warmstart.engine.encodings import Encodings
from warmstart.engine.shelf import Shelf
from warmstart.engine.store import write_json
from warmstart.engine.variants import Variants

SPEEDS = "throughput.json"
"""Beside the activation store: how fast which body was on this machine."""

RATE_BATCHES = 5
"""Batches on which the speed of the body is measured before anything is planned."""

LOOK_TOKENS, LOOK_EVERY = 256, 10.0
"""In the batch that tells whether the machine has become slower, and seconds between two such looks."""

PROOF_ROWS = 8
"""Examples on which a cut proves itself: short and long ones, so that padding takes part."""


FOUND, COMPUTED = 1, 2


@dataclass
class Workbench:
    """Rows are numbered as in ``inputs``. ``targets`` is (N,) for one label, (N, C) for several.

    ``keep_point`` is the cut that a later rung will start from; ``probe_rows`` how many rows of a split the probe has read (None: it was
    not climbed). ``deadline`` (of ``time.perf_counter``) is when the rung at work must have ended. ``hint_rows``, ``hint`` and ``probes``
    are the probe's memory: what suits these data, and heads that were fitted before; ``head_epochs`` is how long it trained a structured
    one. ``fits`` is how many fits (a refit counts by what it costs) share the states that the first one puts into the store.
    With ``views`` each row has so many augmented views: rows beyond those of ``inputs``, with its target; ``spread`` gives them.
    ``fitted`` holds what rungs on a single split made, by label: how to load the predictor, and its settings.
    ``measured`` collects rates of this machine: ``forward`` (seconds per token of the whole frozen body), ``training`` (how
    many forward passes one training step costs per token), and what single parts add; ``slower`` is how busy the machine is (1: not).
    """

    inputs: list[Input]
    targets: NDArray[Any]
    labels: tuple[str, ...]
    task: Task
    modality: Modality
    backbone_name: str
    device: torch.device
    precision: torch.dtype
    max_length: int
    seed: int
    store: activations.Store
    quiet: bool = True
    backbone_options: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    keep_point: int | None = None
    probe_rows: int | None = None
    deadline: float = math.inf
    hint_rows: NDArray[np.int64] = field(default_factory=lambda: np.arange(0))
    hint: tuple[tuple[int, ...], float] | None = None
    probes: dict[bytes, Any] = field(default_factory=dict)
    head_epochs: float = 0.0
    fits: float = 1
    fitted: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = field(default_factory=dict)
    views: int = 0

    def __post_init__(self) -> None:
        if len(self.targets) == len(self.inputs):
            self.targets = self.variants.extended(self.targets)

    def probed(self, settings: Mapping[str, Any]) -> None:
        """A probe with these settings was climbed (no ``rows``: it read all)."""
        self.probe_rows = settings.get("rows") or len(self.hint_rows)

    @cached_property
    def balance(self) -> Balance:
        """What each row counts in training, as the task's options say; a view counts as much as its row."""
        own = self.targets[: len(self.inputs)]
        found = self.task.balance(own, self.n_classes) if hasattr(self.task, "balance") else Balance()
        return found if found.weights is None else replace(found, weights=self.variants.extended(found.weights))

    @property
    def n_classes(self) -> int:
        return len(self.labels)

    @cached_property
    def backbone(self) -> Backbone:
        """The pre-trained body, opened on first use."""
        return backbones.load(self.backbone_name, device=self.device, precision=self.precision, options=self.backbone_options)

    @cached_property
    def encoder(self) -> Encoder:
        """The backbone's own preprocessing."""
        return self.modality.encoder(self.backbone.folder, self.max_length)

    @cached_property
    def encoded(self) -> Encodings:
        """Every row as arrays."""
        return Encodings(self.encoder, self.inputs)

    @cached_property
    def variants(self) -> Variants:
        """The augmented views of the rows."""
        return Variants(self.inputs, self.modality, self.views, self.seed)

    def spread(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """These rows, then all their views."""
        return self.variants.spread(rows)

    def example(self, row: int) -> Encoded:
        """One row as arrays; a view is made when it is asked for."""
        return self.encoded[row] if row < len(self.inputs) else self.encoder.encode([self.variants.view(row)])[0]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Size of each row, in tokens or what else its encoder counts; a view is as long as its row."""
        return self.variants.extended(self.encoded.sizes)

    @property
    def mean_length(self) -> float:
        """Mean tokens per row."""
        return float(self.lengths.mean())

    @cached_property
    def keys(self) -> list[bytes]:
        """Content hash per row, the address of its states in the store."""
        return [activations.content_key(self.variants.content(row)) for row in range(len(self.lengths))]

    def batch(self, rows: Sequence[int] | NDArray[np.int64], *, length: int = 0) -> dict[str, Tensor]:
        """These rows on the device, padded to the longest or to ``length``."""
        return {k: v.to(self.device) for k, v in self.encoder.collate([self.example(int(i)) for i in rows], length=length).items()}

    def forward_seconds(self) -> float:
        """Seconds per token of the whole frozen body, measured once on a few of the batches that a pass over these rows has."""
        if "forward" not in self.measured:
            packed = batches.frozen(self.lengths, self.backbone.model)
            chosen = np.random.default_rng(self.seed).permutation(len(packed))[:RATE_BATCHES]
            rates = []
            with torch.inference_mode():
                for which in [chosen[0], *chosen]:
                    part, length = packed[which]
                    full = np.resize(part, max(1, batches.TOKENS // length))  # few rows would measure the overhead of small batches
                    batch = self.batch(full, length=length)
                    began = time.perf_counter()
                    network.pooled_states(self.backbone.frozen, self.backbone.frozen_trunk, batch).cpu()
                    rates.append((time.perf_counter() - began) / float(self.lengths[full].sum()))
            # The first pass pays for allocation and for choosing kernels; the median forgives a moment's noise.
            self.measured["forward"] = float(np.median(rates[1:]))
            self.look()
        return self.measured["forward"] * self.measured.get("slower", 1.0)

    def look(self) -> None:
        """By what factor the machine is slower now than it has been, as when others use it too: from a small batch that is run again."""
        began = time.perf_counter()
        if "forward" not in self.measured or began - self.measured.get("looked", -math.inf) < LOOK_EVERY:
            return
        length = batches.padded(int(np.median(self.lengths)))
        batch = self.batch(np.arange(min(len(self.inputs), max(1, LOOK_TOKENS // length))))
        with torch.inference_mode():
            network.pooled_states(self.backbone.frozen, self.backbone.frozen_trunk, batch).cpu()
        self.measured["looked"] = time.perf_counter()
        now = self.measured["looked"] - began
        quickest = self.measured["look"] = min(now, self.measured.get("look", math.inf))
        # Half of it is what was seen before, as one look may fall into a bad moment.
        self.measured["slower"] = math.sqrt(self.measured.get("slower", 1.0) * now / quickest)

    def view_seconds(self) -> float:
        """Seconds that making one augmented view takes, measured once; 0 where there are none."""
        if self.views and "view" not in self.measured:
            n = len(self.inputs)
            times = []
            for row in range(n, n + min(8, n * self.views)):
                began = time.perf_counter()
                self.example(row)
                times.append(time.perf_counter() - began)
            self.measured["view"] = float(np.median(times))
        return self.measured.get("view", 0.0)

    def require_cut(self, point: int) -> None:
        """Let the cut at ``point`` prove itself on rows of this run.

        Raises:
            CutRefused: It does not hold for this body; the message says why.
        """
        spread = np.argsort(self.lengths[: len(self.inputs)], kind="stable")[:: max(1, len(self.inputs) // PROOF_ROWS)][:PROOF_ROWS]
        proof = self.backbone.prove(point, self.batch(spread))
        if not proof.ok:
            raise CutRefused(proof.reason, "prefix + tail equal to the whole body", "use a strategy that runs the whole body: full or lora")

    def pooled(self, rows: NDArray[np.int64]) -> Tensor:
        """Mean-pooled states at all points of the frozen body: (n, L + 1, D) in float32.

        The same pass keeps what a later rung needs at ``keep_point``.
        """
        keep = [] if self.keep_point is None else [f"cut:{self.keep_point}", f"low:{self.keep_point}"]
        self._fill(rows, self.backbone.n_blocks, [f"pooled:{self.backbone.n_blocks}", *keep])
        return self._gather(f"pooled:{self.backbone.n_blocks}", rows)

    def prepare(self, rows: NDArray[np.int64], point: int, *, below: Sequence[int] | None = None) -> None:
        """Bring what training from the cut at ``point`` needs into the store: the state there, and the pooled states up to it, or
        (``below``, for a structured head) the unpooled states at these points."""
        if below is not None:
            self.prepare_states(rows, sorted({point, *below}))
            return
        whole = [f"pooled:{point}"] if point == self.backbone.n_blocks else []
        self._fill(rows, point, [*whole, f"cut:{point}", f"low:{point}"])

    def prepare_states(self, rows: NDArray[np.int64], points: Sequence[int]) -> None:
        """Bring the unpooled states at all of these points into the store, in one pass."""
        if points:
            self._fill(rows, max(points), [f"cut:{point}" for point in points])

    def hidden(self, rows: NDArray[np.int64], point: int, batch: cut.Batch) -> Tensor:
        """Stored states at ``point`` as the body has them for this batch: (n, T, D), padded, or maps (n, D, H, W) or vectors (n, D).

        In the precision of the frozen body. For rows that were prepared.
        """
        ragged = self._shelf(f"cut:{point}").get([self.keys[int(i)] for i in rows])
        length = network.state_length(self.backbone.frozen, batch, [len(state) for state in ragged])
        return network.from_rows(ragged, self.shapes[point], length=length).to(self.device)

    def lower(self, rows: NDArray[np.int64], point: int) -> Tensor:
        """Pooled states at the points before the cut at ``point``: (n, point, D). For rows that were prepared."""
        return self._gather(f"low:{point}", rows)[:, :point].to(self.device)

    def lacking(self, rows: NDArray[np.int64], point: int | None = None, *, points: Sequence[int] = ()) -> int:
        """How many of these rows a prefix has yet to run over: to ``point``, through the whole body (None), or for states at ``points``."""
        kinds = [f"pooled:{self.backbone.n_blocks}"] if point is None else [f"cut:{point}", f"low:{point}"]
        kinds = [f"cut:{p}" for p in points] if points else kinds
        keys = [self.keys[int(i)] for i in rows]
        return len({i for kind in kinds for i in self._shelf(kind).missing(keys)})

    def stored(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these rows whose pooled states at all points are in the store."""
        missing = set(self._shelf(f"pooled:{self.backbone.n_blocks}").missing([self.keys[int(i)] for i in rows]))
        return np.array([row for i, row in enumerate(rows) if i not in missing], dtype=np.int64)

    def remember_speed(self) -> None:
        """Leave the measured speed of this body where ``warmstart models`` finds it."""
        if "forward" not in self.measured:
            return
        path = self.store.root.parent / SPEEDS
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        known[str(self.backbone.folder)] = {
            "examples_per_second": 1 / (self.measured["forward"] * self.mean_length),
            "tokens": self.mean_length,
            "device": str(self.device),
            "precision": str(self.precision).removeprefix("torch."),
        }
        with suppress(OSError, DiskFull):  # worth remembering, not worth failing for
            write_json(path, known)

    def check_time(self) -> None:
        """Between two pieces of work that cannot be shortened.

        Raises:
            OutOfTime: The rung at work must have ended by now.
        """
        if time.perf_counter() > self.deadline:
            raise OutOfTime("the time for this rung is used up", do="give a larger --budget")

    def _fill(self, rows: NDArray[np.int64], stop: int, kinds: Sequence[str]) -> None:
        """One pass of the prefix, up to ``stop``, over the rows that lack a state of one of these kinds."""
        keys = [self.keys[int(i)] for i in rows]
        shelves = {kind: self._shelf(kind) for kind in kinds}
        lacking = {i for shelf in shelves.values() for i in shelf.missing(keys)}
        todo = rows[np.array(sorted(lacking), dtype=np.int64)]
        for kind in kinds:
            origin = self._origins.setdefault(kind, np.zeros(len(self.keys), dtype=np.int8))
            origin[todo] = np.where(origin[todo] == FOUND, FOUND, COMPUTED)
            origin[rows] = np.where(origin[rows] == 0, FOUND, origin[rows])
        if not lacking:
            return
        began = time.perf_counter()
        with tqdm(total=len(todo), desc="states", unit="row", disable=True if self.quiet else None, leave=False) as bar:
            for part, length in batches.frozen(self.lengths[todo], self.backbone.model):
                self.check_time()
                self._observe(todo[part], length, stop, shelves)
                bar.update(len(part))
        if stop == self.backbone.n_blocks and len(todo) > 200:
            self.measured["forward"] = (time.perf_counter() - began) / float(self.lengths[todo].sum()) / self.measured.get("slower", 1.0)

    @torch.inference_mode()
    def _observe(self, rows: NDArray[np.int64], length: int, stop: int, shelves: dict[str, Shelf]) -> None:
        keys = [self.keys[int(i)] for i in rows]
        kept: dict[int, Tensor] = {}
        batch = self.batch(rows, length=length)
        states = network.pooled_states(
            self.backbone.frozen,
            self.backbone.frozen_trunk,
            batch,
            stop=stop,
            visit=lambda point, state: kept.update({point: state}) if f"cut:{point}" in shelves else None,
        )
        states = network.widened(states, self.width).cpu()
        for kind, shelf in shelves.items():
            if kind.startswith("cut"):
                state = kept[int(kind.partition(":")[2])]
                mask = network.state_mask(self.backbone.frozen, state, batch)
                shelf.put(keys, network.as_rows(state.cpu(), mask))
            else:
                points = int(kind.partition(":")[2]) + 1
                shelf.put(keys, list(states[:, :points].flatten(1).unsqueeze(1)))  # one row of (points * D) per example

    def _gather(self, kind: str, rows: NDArray[np.int64]) -> Tensor:
        found = self._shelf(kind).gather([self.keys[int(i)] for i in rows])
        return found.reshape(len(rows), -1, self.width)

    def _shelf(self, kind: str) -> Shelf:
        if kind not in self._shelves:
            name, _, point = kind.partition(":")
            points = int(point) + 1 if self.backbone.trunk is not None else 1
            width = self.shapes[int(point)][0 if len(self.shapes[int(point)]) > 2 else -1] if name == "cut" else points * self.width
            precision = self.backbone.precision  # not all bodies compute in the one that was asked for
            key = Key(self.backbone.fingerprint, kind, str(precision), self.encoder.fingerprint)
            self._shelves[kind] = self.store.shelf(key, width, precision if name == "cut" else torch.float32)
        return self._shelves[kind]

    @property
    def width(self) -> int:
        """Features per position of the hidden state, at the point where they are most."""
        return self._form[1]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one example's state at each point of the trunk: (T, D), where T differs by example, a map (D, H, W), or (D,)."""
        return self._form[0]

    @cached_property
    def _form(self) -> tuple[list[tuple[int, ...]], int]:
        """Shapes and width, from running the first row."""
        shapes: list[tuple[int, ...]] = []
        body, trunk = self.backbone.frozen, self.backbone.frozen_trunk
        with torch.inference_mode():
            states = network.pooled_states(body, trunk, self.batch([0]), visit=lambda _, state: shapes.append(tuple(state.shape[1:])))
        return shapes, states.shape[-1]

    def origins(self) -> tuple[int, int]:
        """How many of the states that this run used it found in the store, and how many it computed."""
        every = np.concatenate([np.zeros(0, dtype=np.int8), *self._origins.values()])
        return int((every == FOUND).sum()), int((every == COMPUTED).sum())

    @cached_property
    def _origins(self) -> dict[str, NDArray[np.int8]]:
        return {}

    @cached_property
    def _shelves(self) -> dict[str, Shelf]:
        return {}
