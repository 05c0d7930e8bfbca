"""Trains an autoencoder. B images of a step, C H W their shape, P patches of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warmstart.core.errors import BudgetTooSmall
from warmstart.core.report import Metric
from warmstart.engine import autoencoder, autoencoder_settings, bodies, dial, footprint, mosaic, pixels, preprocessing, statistics, store
from warmstart.engine.learner import Group, Phase, Picture, Plan, Setting
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels
from warmstart.engine.seeds import seeded

VALIDATED = 256
PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
"""Of the vision transformer's preprocessing, as its processor has them."""


class Step(NamedTuple):
    """What one step sees: ``inputs`` as the encoder takes them, ``target`` (B, C, H, W) from 0 to 1, and random numbers."""

    inputs: Tensor
    target: Tensor
    drawn: Tensor | None


def prepare(options: Any, setting: Setting) -> Autoencoding:
    """The learner for these options (``parts.objectives.autoencoder.Options``).

    Raises:
        BadOption: An option is out of range, or does not go with another.
        BudgetTooSmall: Not one step fits into the time.
        InputError: The images cannot be read.
    """
    found = pixels.read(setting, size=options.side)
    if setting.settings:
        return Autoencoding(found, setting, setting.settings)
    settings = autoencoder_settings.decided(options, setting, found)
    learner = Autoencoding(found, setting, settings)
    if setting.seconds is None and options.steps == 0:
        return learner
    settings["step_seconds"] = dial.seconds_per_step(learner, setting)
    if setting.seconds is not None and options.steps is None:
        settings["most_steps"] = autoencoder_settings.MOST_PASSES * learner.order.per_pass
        settings["steps"] = min(int(setting.seconds / settings["step_seconds"]), settings["most_steps"])
        if settings["steps"] < 1:
            raise BudgetTooSmall(
                f"{setting.seconds:.1f} s for training",
                f"at least {settings['step_seconds']:.1f} s, which one step takes",
                "give a larger --budget or a smaller --size",
            )
    return Autoencoding(found, setting, settings)


class Autoencoding:
    """Obeys ``core.protocols.Learner``."""

    watches = True
    shards = False

    def __init__(self, found: Pixels, setting: Setting, settings: Mapping[str, Any]) -> None:
        self.data, self.setting, self.settings = found, setting, dict(settings)
        self.corpus, self.device = found.corpus, setting.device
        self.masked = self.settings["architecture"] == "masked"
        self.order = Order(len(found.train), self.settings["batch"], seed=setting.seed, rank=setting.rank, world=setting.world)
        with seeded(setting.seed):
            self.module: nn.Module = self._built().to(self.device)
        if self.settings["architecture"] == "convolutional":
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._generator = torch.Generator()
        steps = self.settings["steps"]
        parameters = sum(p.numel() for p in self.module.parameters())
        self.plan = Plan(parameters, steps, "images", steps * self.order.batch, steps * self.settings["step_seconds"], self._memory())

    def _memory(self) -> int:
        """Bytes: images, parameters with gradients, moments and a working copy, activations of this process's share of a step."""
        images = self.data.images.numel() * self.data.images.element_size()
        (one,) = self._held(1)
        inputs = one.inputs.contiguous(memory_format=self._form)
        shown = (inputs, one.drawn, self._visible) if self.masked else (inputs,)
        kept = footprint.PER_NUMBER * footprint.numbers(self.module, lambda: self.module(*shown))
        share = -(-self.order.batch // self.setting.world)
        return images + 20 * sum(p.numel() for p in self.module.parameters()) + share * kept

    def _built(self) -> nn.Module:
        c, h, w = self.data.shape
        if self.masked:
            return autoencoder.MaskedAutoencoder(_vit(self.settings, c, h), width=max(32, self.settings["width"] // 2), depth=1)
        hidden, image = self.settings["hidden"], {"size": [h, w], "channels": c, "mean": [0.0] * c, "std": [1.0] * c}
        if self.settings["architecture"] == "dense":
            config = {
                "model_type": "warmstart-mlp",
                "sizes": [c * h * w, *hidden],
                "activation": self.settings["activation"],
                "image": image,
            }
            decoder: nn.Module = autoencoder.DenseDecoder(config["sizes"], self.settings["activation"])  # type: ignore[arg-type]
        else:
            config = {"model_type": "warmstart-convnet", "widths": hidden, "channels": c, "norm": self.settings["norm"], "image": image}
            decoder = autoencoder.ConvDecoder(c, hidden, (h, w))
        return autoencoder.Autoencoder(bodies.build(config), decoder)

    def phases(self) -> Sequence[Phase]:
        s = self.settings
        return [Phase("reconstruction", s["steps"], cooldown=s["cooldown"], most=s.get("most_steps", 0))]

    def begin(self, phase: int) -> None:
        return

    def groups(self, phase: int) -> Sequence[Group]:
        named = [(name, p) for name, p in self.module.named_parameters() if ".pooler." not in name]
        matrices = tuple(p for _, p in named if p.ndim > 1)
        lr, decay = self.settings["lr"], self.settings["weight_decay"]
        if not decay:
            return [Group(tuple(p for _, p in named), lr)]
        return [Group(matrices, lr, weight_decay=decay), Group(tuple(p for _, p in named if p.ndim < 2), lr)]

    # Steps ----------------------------------------------------------------------------------------------------------------------------

    def batch(self, phase: int, step: int) -> Step:
        self._generator.manual_seed((self.setting.seed << 32) + step)
        share = slice(self.setting.rank, None, self.setting.world)
        rows = self.order(step)
        drawn = self._drawn(self.order.batch)
        return self._step(self.data.batch(rows, self.device), None if drawn is None else drawn[share], share)

    def _drawn(self, n: int) -> Tensor | None:
        """Random numbers of a whole batch: orders of patches, or directions in the space of codes."""
        if self.masked:
            return torch.rand(n, self._patches, generator=self._generator).argsort(1).to(self.device)
        if self.settings["contraction"] and not self._exact:
            shape = self._code_shape()
            return torch.randn(n, *shape, generator=self._generator).to(self.device)
        return None

    def _step(self, target: Tensor, drawn: Tensor | None, share: slice) -> Step:
        inputs = target
        if self.masked:
            inputs = (target - PIXEL_MEAN) / PIXEL_STD
        elif self.settings["noise"] != "none":
            noisy = torch.zeros(self.order.batch, *self.data.shape, device=self.device)
            noisy[share] = target
            inputs = autoencoder.corrupted(noisy, self.settings["noise"], self.settings["noise_amount"], self._generator)[share]
        return Step(inputs.to(self.setting.precision, memory_format=self._form), target, drawn)

    def count(self, batch: Step) -> int:
        return len(batch.target)

    def learn(self, module: nn.Module, phase: int, batch: Step) -> dict[str, Tensor]:
        # Every term is a mean over this process's share; shares may differ by one image, so they are weighed by their size.
        share = len(batch.target) * self.setting.world / self.order.batch
        if self.masked:
            loss = self._drawing(module, batch).mean() * share
            loss.backward()  # type: ignore[no-untyped-call]
            return {"loss": loss.detach()}
        contracts = self.settings["contraction"] > 0
        inputs = batch.inputs.requires_grad_(True) if contracts and not self._exact else batch.inputs
        into, code = module(inputs)
        loss = self._distance(into, batch.target).mean() * share
        found = {"loss": loss.detach()}
        if self.settings["sparsity"] is not None:
            penalty = autoencoder.sparsity(code, self.settings["sparsity"]) * share
            found["sparsity"] = penalty.detach()
            loss = loss + self.settings["sparsity_cost"] * penalty
        if contracts:
            penalty = self._contraction(module, code, inputs, batch.drawn).mean() * share
            found["contraction"] = penalty.detach()
            loss = loss + self.settings["contraction"] * penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return found

    def _distance(self, into: Tensor, target: Tensor) -> Tensor:
        """Mean over the pixels of every image: (B,)."""
        if self.settings["loss"] == "cross_entropy":
            return F.binary_cross_entropy_with_logits(into.float(), target, reduction="none").flatten(1).mean(1)
        return (into.float() - target).square().flatten(1).mean(1)

    def _drawing(self, module: nn.Module, batch: Step) -> Tensor:
        """Squared distance of hidden patches, each normalised: (B,)."""
        order, visible = cast(Tensor, batch.drawn), self._visible
        drawn = module(batch.inputs, order, visible).float()
        gaps: Tensor = (
            (drawn - autoencoder.normalised(autoencoder.patches(batch.target, self.settings["patch"]))).square().mean(2)
        )  # (B, P)
        return gaps.gather(1, order[:, visible:]).mean(1)

    def _contraction(self, module: nn.Module, code: Tensor, inputs: Tensor, direction: Tensor | None) -> Tensor:
        if self._exact:
            layer = cast(bodies.Layer, cast(bodies.Mlp, module.encoder).layers[0])
            return autoencoder.contraction(code, layer.linear.weight)
        return autoencoder.estimated_contraction(code, inputs, cast(Tensor, direction))

    # Measures -------------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, module: nn.Module, phase: int) -> dict[str, float]:
        """Reconstruction of held-out images, from clean pixels; of hidden patches where the autoencoder is masked."""
        return {name: float(values.mean()) for name, values in self._measures(module, VALIDATED).items()}

    def _measures(self, module: nn.Module, most: int) -> dict[str, Tensor]:
        losses, errors = [], []
        kind = next(module.parameters()).dtype
        for batch in self._held(most):
            batch = batch._replace(inputs=batch.inputs.to(kind, memory_format=self._form))
            if self.masked:
                losses.append(self._drawing(module, batch))
                continue
            into = module(batch.inputs)[0]
            losses.append(self._distance(into, batch.target))
            errors.append((self._shown(into.float()) - batch.target).square().flatten(1).mean(1))
        found = {"loss": torch.cat(losses)}
        return found if self.masked else {**found, "squared_error": torch.cat(errors)}

    def _held(self, most: int) -> Sequence[Step]:
        """Held-out images in batches, without noise, always with the same patches hidden."""
        self._generator.manual_seed(self.setting.seed)
        steps = []
        for start in range(0, min(most, len(self.data.held)), 256):
            target = pixels.unit(self.data.held[start : min(most, start + 256)].to(self.device))
            drawn = self._drawn(len(target)) if self.masked else None
            steps.append(Step((target - PIXEL_MEAN) / PIXEL_STD if self.masked else target, target, drawn))
        return steps

    def _shown(self, into: Tensor) -> Tensor:
        return torch.sigmoid(into) if self.settings["loss"] == "cross_entropy" else into

    @torch.no_grad()
    def finish(self, module: nn.Module) -> dict[str, Metric]:
        """``validation_loss``, and ``squared_error``, the mean over the pixels of all held-out images."""
        found = self._measures(module.eval(), len(self.data.held))
        return {"validation_loss" if name == "loss" else name: statistics.unbounded_mean(values.cpu()) for name, values in found.items()}

    @torch.no_grad()
    def pictures(self, module: nn.Module) -> Sequence[Picture]:
        module.eval()
        target = pixels.unit(self.data.held[:20].to(self.device))
        self._generator.manual_seed(self.setting.seed)
        if not self.masked:
            noise, rows = self.settings["noise"], [target]
            shown = target
            if noise != "none":
                shown = autoencoder.corrupted(target, noise, self.settings["noise_amount"], self._generator)
                rows.append(shown)
            rows.append(self._shown(module(shown)[0]))
            between = "their noisy copies, and " if noise != "none" else ""
            return [Picture(f"held-out images, below them {between}what comes out", mosaic.pairs(*rows))]
        order = cast(Tensor, self._drawn(len(target)))
        cut = autoencoder.patches(target, self.settings["patch"])
        mean, deviation = cut.mean(2, keepdim=True), (cut.var(2, keepdim=True) + 1e-6).sqrt()
        drawn = module((target - PIXEL_MEAN) / PIXEL_STD, order, self._visible) * deviation + mean
        hidden = torch.zeros_like(order).scatter(1, order[:, self._visible :], 1)[:, :, None] > 0
        rows = [
            target,
            *(autoencoder.unpatch(p, *self.data.shape) for p in (cut.masked_fill(hidden, 0.5), torch.where(hidden, drawn, cut))),
        ]
        title = "held-out images, the patches that are seen, and what is drawn (with each hidden patch's true mean and contrast)"
        return [Picture(title, mosaic.pairs(*rows))]

    def samples(self, module: nn.Module) -> Sequence[str]:
        return ()

    def save(self, folder: Path) -> None:
        """The encoder: a body of our own, or a ViT that ``AutoModel`` opens."""
        if not self.masked:
            body = cast(autoencoder.Autoencoder, self.module).encoder
            bodies.save(body, folder)
            return
        store.save_transformers(cast(Any, self.module).vit, folder)
        c = self.data.shape[0]
        settings = preprocessing.plain(self.data.shape, mean=[PIXEL_MEAN] * c, std=[PIXEL_STD] * c)
        store.write_json(folder / preprocessing.FILE, settings)

    # Shapes ---------------------------------------------------------------------------------------------------------------------------

    @property
    def _form(self) -> torch.memory_format:
        return torch.channels_last if self.settings["architecture"] == "convolutional" else torch.contiguous_format

    @property
    def _patches(self) -> int:
        return int((self.data.shape[1] // self.settings["patch"]) ** 2)

    @property
    def _visible(self) -> int:
        return max(1, min(self._patches - 1, round((1 - float(self.settings["masked"])) * self._patches)))

    @property
    def _exact(self) -> bool:
        """Whether the encoder is one sigmoid layer, whose slope is known."""
        s = self.settings
        return bool(s["architecture"] == "dense" and len(s["hidden"]) == 1 and s["activation"] == "sigmoid")

    def _code_shape(self) -> tuple[int, ...]:
        hidden = self.settings["hidden"]
        if self.settings["architecture"] == "dense":
            return (hidden[-1],)
        return (hidden[-1], self.data.shape[1] >> len(hidden), self.data.shape[2] >> len(hidden))


def _vit(settings: Mapping[str, Any], channels: int, side: int) -> Any:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=settings["width"],
        num_hidden_layers=settings["depth"],
        num_attention_heads=settings["width"] // 32,
        intermediate_size=4 * settings["width"],
        image_size=side,
        patch_size=settings["patch"],
        num_channels=channels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.ViTModel(config)
