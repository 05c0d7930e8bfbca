"""Trains a deep belief network, one phase a layer, and fine-tunes the autoencoder that it unrolls into. N images, B of a step, V pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warmstart.core.report import Metric
from warmstart.core.words import counted
from warmstart.engine import bodies, dbn_settings, dial, mosaic, pixels, rbm, rbm_likelihood, statistics
from warmstart.engine.dbn import AT_ONCE, DeepBelief
from warmstart.engine.learner import Group, Phase, Picture, Plan, Setting
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels
from warmstart.engine.seeds import seeded

LR, GAUSSIAN_SHARE = 0.05, 0.1
"""Learning rate of a machine; Gaussian units have no bound, and bear a tenth of it (Hinton 2010, section 13.2)."""
VALIDATED = 250
"""Held-out images that are measured on the way; at the end all are."""
CACHE_BYTES = 1 << 30
ANNEALING = {"steps": 1000, "chains": 100}


def prepare(options: Any, setting: Setting) -> Belief:
    """The learner for these options (``parts.objectives.rbm.Options``).

    Raises:
        BadOption: An option is out of range.
        BudgetTooSmall: Not one step fits into the time.
        InputError: The images cannot be read.
    """
    found = pixels.read(setting, size=options.side)
    if setting.settings:
        return Belief(found, setting, setting.settings)
    settings = dbn_settings.decided(options, setting, found)
    learner = Belief(found, setting, settings)
    if setting.seconds is None and options.steps == 0:
        return learner
    seconds = dial.seconds_per_step(learner, setting) / learner.sweep
    settings["step_seconds"] = learner.seconds_of(seconds)
    if setting.seconds is not None:
        dbn_settings.spend(settings, options, setting.seconds, learner.per_pass)
    return Belief(found, setting, settings)


class Belief:
    """Obeys ``core.protocols.Learner``."""

    watches = False  # differences of free energies are no mean of bounded terms
    shards = False

    def __init__(self, found: Pixels, setting: Setting, settings: Mapping[str, Any]) -> None:
        self.data, self.setting, self.settings = found, setting, dict(settings)
        self.corpus, self.device = found.corpus, setting.device
        layers = self.settings["layers"]
        self.layers = len(layers)
        self.sizes = [int(torch.tensor(found.shape).prod()), *layers]
        self.order = Order(len(found.train), self.settings["batch"], seed=setting.seed, rank=setting.rank, world=setting.world)
        self.per_pass = self.order.per_pass
        self.mean, self.std = self._scale()
        with seeded(setting.seed):
            self.module: nn.Module = DeepBelief(
                self.sizes,
                visible_units=self.settings["visible"],
                linear_code=self.settings["linear_code"],
                chains=self.settings["chains"] or self.order.batch,
                unroll=self.settings["unroll"],
            ).to(self.device)
            self.untrained = bodies.build(self._config())
        self.sweep = self._sweep()
        self._how = rbm.How(
            self.settings["k"],
            self.settings["persistent"],
            self.settings["weight_decay"],
            self.settings["sparsity"],
            self.settings["sparsity_cost"],
        )
        self._scratch = copy.deepcopy(self._net.machines).to(setting.precision) if self.sweep > 1 else None
        self._generator = torch.Generator()
        self._cached: tuple[int, Tensor] | None = None
        phases = self.phases()
        steps = sum(phase.steps for phase in phases)
        self.plan = Plan(
            parameters=sum(p.numel() for p in self.module.parameters()),
            steps=steps,
            unit="images",
            count=sum(phase.steps * self.order.batch * self._steps_in(i) for i, phase in enumerate(phases)),
            seconds=sum(p.steps * self._steps_in(i) * self.settings["step_seconds"][i] for i, p in enumerate(phases)),
            memory_bytes=self._memory(),
            notes=tuple(f"{phase.name}: {counted(phase.steps, 'step')}" for phase in phases) if len(phases) > 1 else (),
        )

    # Phases ---------------------------------------------------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        steps, cooldown = self.settings["steps"] // self.sweep, self.settings["cooldown"]
        found = [
            Phase(f"layer {i + 1} ({a}-{b})", steps, warmup=0.0, cooldown=cooldown, clip=None)
            for i, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        ]
        if self.settings["unroll"]:
            found.append(Phase("fine-tuning", self.settings["finetune_steps"]))
        return found

    def begin(self, phase: int) -> None:
        if phase == self.layers:
            self._net.unroll()
            return
        total, n = torch.zeros(self.sizes[phase], dtype=torch.float64, device=self.device), 0
        for start in range(0, min(len(self.data.train), 10 * AT_ONCE), AT_ONCE):
            x = self._net.means(self._rows(self.data.train[start : start + AT_ONCE]), phase)
            total, n = total + x.sum(0, dtype=torch.float64), n + len(x)
        self._net.machine(phase).start((total / n).float())

    def groups(self, phase: int) -> Sequence[Group]:
        if phase == self.layers:
            moved = (*self._net.encoder.parameters(), *self._net.decoder.parameters())
            return [Group(moved, self.settings["finetune_lr"])]
        machine, momentum = self._net.machine(phase), self.settings["momentum"] if self.sweep == 1 else 0.0
        moved = (machine.weight, machine.visible_bias, machine.hidden_bias)
        return [Group(moved, self._lr(machine), kind="sgd", momentum=momentum)]

    def _lr(self, machine: rbm.Rbm) -> float:
        gaussian = "gaussian" in (machine.visible_units, machine.hidden_units)
        return float(self.settings["lr"] if self.settings["lr"] is not None else LR * (GAUSSIAN_SHARE if gaussian else 1))

    def _sweep(self) -> int:
        """Steps of a machine that are one step of the loop; one where several processes share every batch."""
        most = min(self.settings["sweep"], self.settings["steps"]) if self.setting.world == 1 else 1
        return next((n for n in range(most, 1, -1) if self.settings["steps"] % n == 0), 1)

    def _steps_in(self, phase: int) -> int:
        return 1 if phase == self.layers else self.sweep

    # Steps ----------------------------------------------------------------------------------------------------------------------------

    def batch(self, phase: int, step: int) -> Any:
        if phase == self.layers:
            return self._rows(self.data.train[self.order(step)]).to(self.setting.precision)
        self._generator.manual_seed((self.setting.seed << 34) + (phase << 30) + step)
        places = [self.order(step * self.sweep + i) for i in range(self.sweep)]
        x = torch.split(self._inputs(phase, torch.cat(places)), [len(rows) for rows in places])
        machine, how = self._net.machine(phase), self._how
        return [
            rbm.Rows(
                part,
                rbm.drawn(machine, self.order.batch, how.k, persistent=how.persistent, generator=self._generator),
                self.setting.rank,
                self.setting.world,
                self.order.batch,
            )
            for part in x
        ]

    def count(self, batch: Any) -> int:
        return sum(len(rows.x) for rows in batch) if isinstance(batch, list) else len(batch)

    def learn(self, module: nn.Module, phase: int, batch: Any) -> dict[str, Tensor]:
        if phase < self.layers:
            return {"loss": self._contrast(cast(DeepBelief, module).machine(phase), phase, batch)}
        losses = self._reconstruction_loss(module(batch).float(), batch.float())
        loss = losses.sum() * (self.setting.world / self.order.batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach()}

    def _contrast(self, machine: rbm.Rbm, phase: int, batch: list[rbm.Rows]) -> Tensor:
        if self._scratch is None:
            return cast(Tensor, rbm.contrast(machine, batch[0], self._how))
        own, scratch = self._net.machine(phase), cast(rbm.Rbm, self._scratch[phase])
        found, gap = rbm.sweep(own, scratch, batch, self._how, lr=self._lr(own), momentum=self.settings["momentum"])
        for parameter, gradient in zip(machine.parameters(), found, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        return gap

    def _reconstruction_loss(self, into: Tensor, x: Tensor) -> Tensor:
        """Cross entropy of every image, or half its squared distance for Gaussian units: (B,)."""
        if self.settings["visible"] == "bernoulli":
            return F.binary_cross_entropy_with_logits(into, x, reduction="none").sum(1)
        return (into - x).square().sum(1) / 2

    # Measures -------------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Of a layer: minus the pseudo-likelihood (binary units) or the squared error of one reconstruction; then of the autoencoder."""
        measures = self._measures(phase, self._held[:VALIDATED])
        return {name: float(values.mean()) for name, values in measures.items()}

    def _measures(self, phase: int, x: Tensor) -> dict[str, Tensor]:
        """Values of every held-out image."""
        net = self._net
        if phase == self.layers:
            into = net(x)
            shown = torch.sigmoid(into) if self.settings["visible"] == "bernoulli" else into
            return {"loss": self._reconstruction_loss(into, x), "squared_error": (shown - x).square().sum(1)}
        machine, v = net.machine(phase), net.means(x, phase)
        error = (machine.visible_mean(machine.hidden_mean(v)) - v).square().sum(1)
        if machine.visible_units == "gaussian" or machine.hidden_units == "gaussian":
            return {"loss": error, "squared_error": error}
        generator = torch.Generator().manual_seed(self.setting.seed)
        likelihood = rbm_likelihood.pseudo_likelihood(machine, v, generator)
        return {"loss": -likelihood, "squared_error": error}

    @torch.no_grad()
    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """Of the last phase ``validation_loss`` and ``squared_error`` (summed over an image); of the first layer the likelihoods."""
        x, last = self._held, len(self.phases()) - 1
        found = {
            "validation_loss" if name == "loss" else name: statistics.unbounded_mean(v.cpu()) for name, v in self._measures(last, x).items()
        }
        machine = self._net.machine(0)
        if "gaussian" in (machine.visible_units, machine.hidden_units):
            return found
        found["pseudo_likelihood"] = statistics.unbounded_mean(-self._measures(0, x)["loss"].cpu())
        found["log_likelihood"] = self._log_likelihood(machine, x)
        return found

    def _log_likelihood(self, machine: rbm.Rbm, x: Tensor) -> Metric:
        """Of the first layer: exact where its smaller side can be summed over, else by annealed importance sampling."""
        if min(machine.weight.shape) <= rbm_likelihood.EXACT_UNITS:
            log_z = low = high = rbm_likelihood.exact_log_partition(machine)
        else:
            generator = torch.Generator().manual_seed(self.setting.seed)
            log_z, low, high = rbm_likelihood.annealed_log_partition(machine, x.mean(0), **ANNEALING, generator=generator)
        energy = statistics.unbounded_mean(-machine.free_energy(x).cpu())
        below = math.hypot(energy.value - energy.low, high - log_z)
        above = math.hypot(energy.high - energy.value, log_z - low)
        value = energy.value - log_z
        return Metric(value, value - below, value + above, energy.n)

    @torch.no_grad()
    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        net, x = self._net, self._held[:20]
        generator = torch.Generator().manual_seed(self.setting.seed)
        filters = mosaic.mosaic(mosaic.spread(self._images(net.machine(0).weight[:100], scaled=False)))
        again = net.down(net.means(x, self.layers), self.layers)
        shown = [again]
        title = "held-out images, and below each what comes back from the highest layer"
        if self.settings["unroll"]:
            into = net(x)
            shown.append(torch.sigmoid(into) if self.settings["visible"] == "bernoulli" else into)
            title += ", before and after fine-tuning"
        dreams = net.dream(64, 200, generator)
        return [
            Picture("filters of the first layer (grey: zero)", filters),
            Picture(title, mosaic.pairs(self._images(x), *(self._images(s) for s in shown))),
            Picture("samples: 200 Gibbs steps in the highest layer from random states", mosaic.mosaic(self._images(dreams))),
        ]

    def samples(self, module: nn.Module) -> Sequence[str]:
        return ()

    def save(self, folder: Path) -> None:
        """A perceptron with the machines' weights, fine-tuned where they were; without any step one as torch begins it."""
        body = self.untrained
        layers = cast(bodies.Mlp, body).layers
        source = self._net.encoder if self.settings["unroll"] else self._net.machines
        if any(phase.steps for phase in self.phases()):
            for layer, trained in zip(layers, source, strict=True):
                bias = trained.bias if self.settings["unroll"] else trained.hidden_bias
                state = {"linear.weight": cast(Tensor, trained.weight), "linear.bias": cast(Tensor, bias)}
                layer.load_state_dict({name: value.detach().cpu() for name, value in state.items()})
        bodies.save(body, folder)

    # Data -----------------------------------------------------------------------------------------------------------------------------

    @property
    def _net(self) -> DeepBelief:
        return cast(DeepBelief, self.module)

    def _config(self) -> dict[str, Any]:
        c, h, w = self.data.shape
        image = {"size": [h, w], "channels": c, "mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return {
            "model_type": "warmstart-mlp",
            "sizes": self.sizes,
            "activation": "sigmoid",
            "linear_code": self.settings["linear_code"],
            "image": image,
        }

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every channel for Gaussian units, as (C, 1, 1); 0 and 1 for binary ones."""
        c = self.data.shape[0]
        mean, std = torch.zeros(c, 1, 1), torch.ones(c, 1, 1)
        if self.settings["visible"] == "gaussian":
            sample = pixels.unit(self.data.images[self.data.train[: 2 * AT_ONCE]])
            mean, std = sample.mean((0, 2, 3)).view(c, 1, 1), sample.std((0, 2, 3)).clamp(min=1e-3).view(c, 1, 1)
        return mean, std

    def _rows(self, rows: Tensor) -> Tensor:
        """Images of these rows as the visible units take them: (B, V) float32."""
        return self._flat(self.data.batch(rows, self.device))

    def _flat(self, x: Tensor) -> Tensor:
        if self.settings["visible"] == "gaussian":
            x = (x - self.mean.to(x.device)) / self.std.to(x.device)
        return x.flatten(1)

    def _images(self, x: Tensor, *, scaled: bool = True) -> Tensor:
        """(N, V) as images (N, C, H, W) from 0 to 1 (``scaled``: undo the standardisation)."""
        images = x.detach().cpu().view(len(x), *self.data.shape)
        return images * self.std + self.mean if scaled else images

    @property
    def _held(self) -> Tensor:
        return self._flat(pixels.unit(self.data.held.to(self.device)))

    def _inputs(self, phase: int, rows: Tensor) -> Tensor:
        """What the machine of this phase sees of these rows: (B, D) in the precision of training; computed once where it fits."""
        kind, n, width = self.setting.precision, len(self.data.train), self.sizes[phase]
        if n * width * kind.itemsize > CACHE_BYTES:
            return self._net.means(self._rows(self.data.train[rows]), phase).to(kind)
        if self._cached is None or self._cached[0] != phase:
            whole = torch.empty(n, width, dtype=kind, device=self.device)
            for start in range(0, n, AT_ONCE):
                whole[start : start + AT_ONCE] = self._net.means(self._rows(self.data.train[start : start + AT_ONCE]), phase)
            self._cached = (phase, whole)
        return self._cached[1].index_select(0, rows.to(self.device))

    def seconds_of(self, first: float) -> list[float]:
        """Seconds of a step of every phase, where a step of the first takes ``first``: by their multiplications."""
        work = [a * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True)]
        per_phase = [first * w / work[0] for w in work]
        return [*per_phase, 2 * sum(per_phase)] if self.settings["unroll"] else per_phase

    def _memory(self) -> int:
        """Bytes: images, what the first layer sees, parameters with gradients, momentum and a working copy, and units of a step.

        Those of a layer are there four times (probabilities and samples, of the data and of the chain); unrolled, the way there and back
        with its gradients is as much.
        """
        images = self.data.images.numel() * self.data.images.element_size()
        cache = len(self.data.train) * max(self.sizes[:-1]) * self.setting.precision.itemsize
        units = 4 * 4 * int(self.order.batch) * sum(self.sizes)
        kept: int = images + (cache if cache <= CACHE_BYTES else 0) + 20 * sum(p.numel() for p in self.module.parameters()) + units
        return kept
