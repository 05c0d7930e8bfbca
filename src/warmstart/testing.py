"""The contract checks that every part must pass. Public: a plug-in's test is ``check_part("strategies", "mine")``.

Each check raises AssertionError with a sentence that says what the contract wants.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core import registry
from warmstart.core.protocols import BackboneSource, Importer, Input, Modality, Objective, Strategy, Task
from warmstart.core.report import Metric
from warmstart.core.structured import StructuredTask
from warmstart.samples import BODIES, LABELS, NOISE, SAMPLES, TARGETS, WORDS, drawings, rows, sentence, tiny_backbone, tiny_image_backbone

if TYPE_CHECKING:
    from warmstart.engine.learner import Setting
    from warmstart.engine.workbench import Workbench

__all__ = [
    "LABELS",
    "NOISE",
    "WORDS",
    "check_backbone_source",
    "check_importer",
    "check_modality",
    "check_objective",
    "check_part",
    "check_strategy",
    "check_structured_task",
    "check_task",
    "drawings",
    "rows",
    "sentence",
    "tiny_backbone",
    "tiny_bench",
    "tiny_image_backbone",
]

FRAMEWORKS = ("torch", "transformers", "peft", "sklearn", "pyarrow", "pandas", "matplotlib")
LIGHT_FAMILIES = ("backbones", "strategies")
"""Families whose parts are imported before anything is known to be needed, so importing one must load no framework."""

PROTOCOLS: dict[str, type] = {
    "backbones": BackboneSource,
    "importers": Importer,
    "modalities": Modality,
    "strategies": Strategy,
    "tasks": Task,
}

RAW_LABELS: tuple[list[Any], ...] = (["b", "a", "c", "a", "b"], [["b"], ["a", "b"], [], ["c"], ["a"]])
"""Raw label values, of which a task must take one kind."""


def check_part(family: str, name: str) -> None:
    """Everything that can be checked of a part by its name alone: what all parts have in common, then what its family asks."""
    own: dict[str, Callable[[str], None]] = {
        "backbones": check_backbone_source,
        "importers": check_importer,
        "modalities": check_modality,
        "strategies": check_strategy,
        "tasks": check_task,
    }
    _check_form(family, name)
    if family in own:
        own[family](name)


def check_strategy(name: str) -> None:
    """Plans within its time, fits to the same bits twice, leaves the backbone alone, and is what was saved when it is loaded."""
    import numpy as np
    import torch

    from warmstart.engine.clock import Pace
    from warmstart.engine.job import Job

    part, load = registry.create("strategies", name), registry.module("strategies", name).load
    _require(0 <= part.serve_cost <= 1 and part.worth >= 0, "serve_cost is between 0 and 1, worth is 0 or more")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = tiny_bench(folder)
        train, held = np.arange(72), np.arange(72, 96)
        before = [p.detach().clone() for p in bench.backbone.model.parameters()]
        plan = part.plan(bench, train=train, held=held, seconds=math.inf)
        _require(plan is not None and not plan.shortened, "with all the time there is the plan is not shortened")
        _require(json.loads(json.dumps(plan.settings)) == plan.settings, "settings are plain JSON values")
        none = part.plan(bench, train=train, held=held, seconds=-1.0)
        _require(none is None or none.seconds == 0, "there is no plan where there is no time")

        def fit(rows: Any) -> Any:
            return part.fit(bench, train, rows, Job("fold0", plan.settings, 0, Pace(math.inf), folder / "job"))

        fitted, again, nobody = fit(held), fit(held), fit(held[:0])
        logits = fitted.held_logits
        _require(logits.shape == (len(held), bench.n_classes) and logits.dtype == np.float32, "held_logits is (M, C) in float32")
        _require(bool(np.isfinite(logits).all()), "held_logits are finite")
        _require(np.array_equal(logits, again.held_logits), "the settings and the seed decide every bit")
        _require(nobody.held_logits.shape == (0, bench.n_classes), "without held rows held_logits is (0, C)")
        same = all(torch.equal(a, b) for a, b in zip(before, bench.backbone.model.parameters(), strict=True))
        _require(same, "a fit works on a copy: the backbone stays as it was")
        values = [bench.inputs[int(i)] for i in held]
        predicted = fitted.predictor.logits(values)
        _require(np.allclose(predicted, logits, atol=1e-4), "the predictor predicts what fit says of the held rows")
        how = {"modality": bench.modality, "device": bench.device, "precision": bench.precision, "max_length": bench.max_length}
        for temperature in (1.0, 2.0):
            place = folder / f"saved-{temperature}"
            fitted.predictor.save(place, labels=bench.labels, temperature=temperature)
            loaded = load(place, **how).logits(values)
            if temperature == 1.0:
                _require(np.array_equal(loaded, predicted), "what is saved and loaded predicts the same bits")
            _require(np.allclose(loaded, predicted / temperature, atol=1e-4), "save divides the logits by the temperature")


def check_modality(name: str, *, values: Sequence[Input] = (), backbone: Path | None = None) -> None:
    """Tells inputs apart, collates them, and its features are the same when saved and loaded.

    Args:
        name: Of the modality.
        values: At least three different usable inputs as they stand in a table; needed for modalities that are not of the package.
        backbone: Folder of a body for them; likewise.
    """
    import numpy as np

    from warmstart.engine import gallery

    part: Modality = registry.create("modalities", name)
    if not values and name not in SAMPLES:
        raise AssertionError(f"no inputs are known here for the modality {name}: give values= and backbone=")
    raw = list(values) or SAMPLES[name]()
    values = part.load(raw, folder=Path(), body=None)
    _require(len(part.roles) > 0 and len(set(part.roles)) == len(part.roles), "roles are distinct names")
    _require(all(part.check(value) is None for value in values), "check finds nothing wrong with usable inputs")
    missing = part.load([(None,)], folder=Path(), body=None)[0]
    _require(isinstance(part.check(missing), str), "check says why a missing input cannot be used")
    columns = {part.roles[0]: [value[0] for value in raw], "label": ["a", "b"] * len(raw)}
    _require(part.matches(columns, folder=Path()), "matches knows a column of its own inputs")
    _require(part.infer({part.roles[0]: columns[part.roles[0]]}, {}) == {part.roles[0]: part.roles[0]}, "infer finds that column")
    contents = [part.content(value) for value in values]
    _require(contents == [part.content(tuple(value)) for value in values], "equal inputs have equal content")
    _require(len(set(contents)) == len(values), "different inputs have different content")
    _require(all(isinstance(part.show(value), str) and isinstance(part.where(value), str) for value in values), "show and where give text")
    pictures = [part.picture(value) for value in values]
    _require(all(not uri or gallery.is_picture(uri) for uri in pictures), "a picture is a small data URI of PNG, JPEG or WebP")
    heard = [part.sound(value, 1.0) for value in values] if hasattr(part, "sound") else []
    _require(all(not uri or gallery.is_sound(uri) for uri in heard), "a sound is a small data URI of MP3, OGG, FLAC or WAV")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        featurizer = part.featurizer({})
        fitted = _dense(featurizer.fit(values))
        _require(fitted.shape[0] == len(values), "a featurizer gives one row an input")
        _require(np.array_equal(_dense(featurizer.transform(values)), fitted), "transform agrees with fit")
        featurizer.save(folder / "features")
        again = part.load_featurizer(folder / "features")
        _require(np.array_equal(_dense(again.transform(values)), fitted), "a featurizer saved and loaded gives the same features")
        body = backbone if backbone is not None else BODIES[name](folder / "body")
        encoder = part.encoder(body, 32)
        encoded = encoder.encode(part.load(raw, folder=Path(), body=body))
        batch = encoder.collate(encoded)
        sizes = [encoder.size(example) for example in encoded]
        _require(min(sizes) >= 1 and max(sizes) <= encoder.max_length, "no example is larger than max_length")
        _require(all(len(tensor) == len(values) for tensor in batch.values()), "a batch has a row for every example")
        if "input_ids" in batch:
            _require(encoder.max_length <= 32, "max_length is kept to")
            _require(batch["attention_mask"].sum(1).tolist() == sizes, "attention_mask is 1 for what is real")
        encoder.save(folder / "encoder")
        twin = part.encoder(folder / "encoder", 32)
        _require(twin.fingerprint == encoder.fingerprint, "an encoder saved and loaded has the same fingerprint")
        again_batch = twin.collate(twin.encode(part.load(raw, folder=Path(), body=folder / "encoder")))
        _require(all(np.array_equal(batch[key], again_batch[key]) for key in batch), "and makes the same batch")


def check_task(name: str) -> None:
    """Labels survive being encoded and decoded, and the main metric is the mean of the scores of single rows."""
    import numpy as np
    import torch

    part: Task = registry.create("tasks", name)
    if _is_structured(part):
        check_structured_task(name)
        return
    raw = next((values for values in RAW_LABELS if part.matches(values)), None)
    if raw is None:
        raise AssertionError(f"{name} matches none of the kinds of labels that are known here")
    _require(
        all(part.check(value) is None for value in raw) and isinstance(part.check(None), str), "check tells usable from missing labels"
    )
    labels = part.labels(raw)
    _require(labels == tuple(sorted(set(labels))) and len(labels) == 3, "labels are distinct and sorted")
    targets = part.encode(raw, labels)
    certain = targets.astype(float) if part.link == "sigmoid" else np.eye(len(labels))[targets]
    _require(part.decode(certain, labels) == raw, "what is encoded is decoded again")
    _require(not part.unknown(raw, labels) and sum(part.unknown(raw, labels[:2]).values()) == 1, "unknown counts labels that are not known")
    logits = torch.randn(len(raw), len(labels), generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = part.loss(logits, torch.from_numpy(targets), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    _require(loss.dim() == 0 and logits.grad is not None and bool(logits.grad.abs().sum() > 0), "the loss is a number with a gradient")
    probabilities = part.probabilities(logits.detach().numpy())
    _require(bool((probabilities >= 0).all() and (probabilities <= 1).all()), "probabilities are between 0 and 1")
    _require(part.link == "sigmoid" or np.allclose(probabilities.sum(1), 1), "of a softmax they sum to 1")
    metrics = part.metrics(probabilities, targets, seed=0)
    for metric in metrics.values():
        _require(isinstance(metric, Metric) and metric.low <= metric.value <= metric.high, "a metric lies within its interval")
    main = float(part.scores(probabilities, targets).mean())
    _require(math.isclose(metrics[part.main_metric].value, main, abs_tol=1e-9), "the main metric is the mean of the scores")


def check_structured_task(name: str, *, raw: Sequence[Any] = (), values: Sequence[Input] = ()) -> None:
    """Targets are told from others, what is the same for every input can be answered, scored and said, and metrics have intervals.

    Args:
        name: Of the task.
        raw: At least four raw targets, not all the same; needed for tasks that are not of the package.
        values: The inputs they belong to.
    """
    import numpy as np

    part: StructuredTask = registry.create("tasks", name)
    if not raw and name not in TARGETS:
        raise AssertionError(f"no targets are known here for the task {name}: give raw= and values=")
    values, raw = (list(values), list(raw)) if raw else TARGETS[name]()
    _require(part.modality in registry.parts("modalities"), "modality is a modality")
    _require(part.matches(raw) and not part.matches(["a", "b"] * 8) and not part.matches([1, 2] * 8), "matches knows its own targets")
    _require(all(part.check(value) is None for value in raw) and isinstance(part.check(None), str), "check tells usable from missing")
    labels = part.labels(raw)
    _require(labels == tuple(sorted(set(labels))), "labels are distinct and sorted")
    targets = part.encode(raw, labels)
    _require(targets.shape == (len(raw),) and targets.dtype == object, "targets are objects, one for each row")
    _require(not part.unknown(raw, labels) and bool(part.unknown(raw, labels[:1])), "unknown counts labels that are not known")
    _require(sum(part.counts(list(targets), labels).values()) > 0, "counts says what is in the targets")
    constant = part.constant(list(targets))
    compact = np.tile(constant, (len(raw), *[1] * constant.ndim))
    decoded = part.decode(compact, labels, values)
    _require(len(decoded) == len(raw) and json.loads(json.dumps(decoded)) == decoded, "answers are plain JSON values")
    scores = part.scores(compact, targets)
    _require(scores.shape == (len(raw),) and bool((scores >= 0).all() and (scores <= 1).all()), "scores are between 0 and 1")
    found = part.metrics(compact, targets, seed=0)
    _require(part.main_metric in found, "the main metric is among the metrics")
    _require(all(isinstance(m, Metric) and m.low <= m.value <= m.high for m in found.values()), "a metric lies within its interval")


def check_backbone_source(name: str) -> None:
    """Takes no name that is not its own, and what it offers lies there in a safe format."""
    part: BackboneSource = registry.create("backbones", name)
    _require(part.find("surely no name of a backbone?") is None, "find gives None for what is another source's")
    for known, folder in part.known().items():
        if folder is not None:
            _require(part.find(known) == folder, "find gives the folder that known names")
            _require((folder / "config.json").is_file() and any(folder.glob("*.safetensors")), "a body is config.json and *.safetensors")


def tiny_bench(folder: Path) -> Workbench:
    """A workbench of 96 rows of three classes over ``tiny_backbone``, all of it in ``folder``, in float32 on the CPU."""
    import numpy as np
    import torch

    from warmstart.engine import activations, workbench

    table, task = rows(96), registry.create("tasks", "classification")
    return workbench.Workbench(
        inputs=[(row["text"],) for row in table],
        targets=task.encode([row["label"] for row in table], LABELS),
        labels=LABELS,
        task=task,
        modality=registry.create("modalities", "text"),
        backbone_name=str(tiny_backbone(folder / "backbone")),
        device=torch.device("cpu"),
        precision=torch.float32,
        max_length=64,
        seed=0,
        store=activations.Store(folder / "store"),
        hint_rows=np.arange(72),
    )


def check_importer(name: str) -> None:
    """A small random state dict of every architecture becomes a folder that gives what it gives, with its head and without."""
    from warmstart.engine import importing, store

    part = registry.create("importers", name)
    for architecture in part.architectures:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            raw = importing.random_state(part, architecture, classes=3)
            _require(set(part.head) <= raw.keys(), "the head's tensors are among names")
            for file, classes in (("whole", 3), ("body", 0)):
                given = {key: value for key, value in raw.items() if classes or key not in part.head}
                store.write_tensors(folder / f"{file}.safetensors", given)
                made = importing.run(folder / f"{file}.safetensors", architecture=architecture, out=folder / file)
                _require(made.error <= importing.TOLERANCE and made.classes == classes, "the folder gives what the state dict gives")
                _require(store.load_body(folder / file) is not None, "the folder opens as a body")


def check_objective(name: str, setting: Setting, *, options: Mapping[str, Any] | None = None) -> None:
    """A learner's settings rebuild it, its batches follow from their number alone and shares add up, and what it saves opens as a body.

    Args:
        name: The objective.
        setting: A small one in float32, on the CPU.
        options: Of the objective; without dropout, or anything else that is drawn while it learns.
    """
    import torch

    from warmstart.engine import store

    part = registry.create("objectives", name, options=dict(options or {}))
    learner = part.prepare(setting)
    _require(isinstance(part, Objective), "the part obeys core.protocols")
    _require(json.loads(json.dumps(learner.settings)) == learner.settings, "settings are plain JSON values")
    _require(learner.plan.parameters > 0 and learner.plan.count >= 0 and bool(learner.plan.unit), "there is a plan")
    _require(len(learner.phases()) > 0, "there is a phase")
    again = part.prepare(dataclasses.replace(setting, settings=learner.settings, seconds=None))
    _require(_same(learner.module.state_dict(), again.module.state_dict(), 0.0), "settings rebuild the same weights")
    _require(again.settings == learner.settings, "given settings are kept")
    late, first = _gradients(learner, 2), _gradients(learner, 0)
    _require(_same(first, _gradients(again, 0), 0.0) and _same(late, _gradients(again, 2), 0.0), "a batch depends on its number alone")
    shares = [part.prepare(dataclasses.replace(setting, settings=learner.settings, rank=rank, world=2)) for rank in (0, 1)]
    halves = [_gradients(share, 0) for share in shares]
    mean = {key: (halves[0][key] + halves[1][key]) / 2 for key in first}
    _require(_same(first, mean, 1e-6), "the mean of two processes' gradients is the gradient of the whole batch")
    measures = learner.finish(learner.module.eval())
    _require("validation_loss" in measures and all(m.low <= m.value <= m.high for m in measures.values()), "measures have intervals")
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        learner.save(Path(temporary))
        saved = {value.flatten().double().sum().item() for value in learner.module.state_dict().values()}
        body = store.load_body(Path(temporary))
        _require(all(p.flatten().double().sum().item() in saved for p in body.parameters()), "the saved folder opens as the same body")


def _gradients(learner: Any, step: int) -> dict[str, Any]:
    """Gradients of a step of the first phase, by name."""
    import torch

    torch.manual_seed(0)
    learner.module.train().zero_grad()
    learner.learn(learner.module, 0, learner.batch(0, step))
    return {name: p.grad.clone() for name, p in learner.module.named_parameters() if p.grad is not None}


def _same(some: Mapping[str, Any], others: Mapping[str, Any], tolerance: float) -> bool:
    return some.keys() == others.keys() and all(bool(((some[k] - others[k]).abs() <= tolerance).all()) for k in some)


def _check_form(family: str, name: str) -> None:
    known = registry.parts(family)[name]
    _require(0 < len(known.help) <= 160, "the module begins with one line that says what the part is")
    for option in known.options:
        _require(bool(option.help) and bool(option.default), f"option {option.name} has a default, and below it a string that explains it")
    if family in LIGHT_FAMILIES:
        program = f"import sys, {known.module}; print(*set({FRAMEWORKS!r}) & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        _require(done.stdout.strip() == "" and done.returncode == 0, f"importing the part imports no framework: {done.stdout}{done.stderr}")
    module = registry.module(family, name)
    options: Any = module.Options()
    frozen = dataclasses.is_dataclass(options) and getattr(options, "__dataclass_params__").frozen  # noqa: B009 - unknown to types
    _require(frozen, "Options is a frozen dataclass")
    _require([f.name for f in dataclasses.fields(options)] == [o.name for o in known.options], "Options has only plain fields")
    part = registry.create(family, name, options={o.name: str(getattr(options, o.name)) for o in known.options})
    _require(part.name == name, "the part's name is that of its file")
    if family in PROTOCOLS:
        wanted = StructuredTask if _is_structured(part) else PROTOCOLS[family]
        _require(isinstance(part, wanted), f"Part obeys {wanted.__module__.removeprefix('warmstart.')}.{wanted.__name__}")


def _is_structured(part: Any) -> bool:
    """Whether a task's answers are more than one row of logits."""
    return bool(getattr(part, "structured", False))


def _dense(features: Any) -> Any:
    return features.toarray() if hasattr(features, "toarray") else features


def _require(holds: bool, contract: str) -> None:
    if not holds:
        raise AssertionError(f"the contract wants: {contract}")
