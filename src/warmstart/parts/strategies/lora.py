"""Train low-rank adapters in every block (peft), merged into the body when done."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from warmstart.core.protocols import Modality, Predictor
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.workbench import Workbench


@dataclass(frozen=True)
class Options:
    """What can be set."""

    rank: int = 16
    "rank of the update of each weight matrix (Hu et al. 2021)"
    alpha: float = 32.0
    "the update is scaled by alpha / rank"
    dropout: float = 0.0
    "dropout before the adapters"
    head: Literal["pooled", "native"] = "pooled"
    "pooled: linear in the mean over tokens of the final state; native: the architecture's own, which transformers.pipeline opens"
    epochs: float | None = None
    "passes over the training rows; None: by their number and the budget"
    contrastive: int | None = None
    "steps of a supervised contrastive phase before the head is fitted; None: 40 where labels are few"
    lr: float = 1e-3
    "peak learning rate of the adapters"
    head_lr: float = 1e-3
    "peak learning rate of the head"
    weight_decay: float = 0.0
    "decoupled weight decay of the adapters"
    smoothing: float = 0.0
    "label smoothing"


class Part:
    """Adapters in every linear layer of the trunk."""

    name = "lora"
    order = 40
    serve_cost = 1.0
    worth = 6

    def __init__(self, options: Options) -> None:
        self.options = options

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        from warmstart.core.errors import CutRefused
        from warmstart.engine import courses, finetune

        if not _layers(bench.backbone.model):
            raise CutRefused("the body has no linear layers for adapters", "a body with linear layers in its trunk", "use tail or full")
        wanted = courses.course(bench, self.options, point=0, n_train=len(train), norms=False)
        return finetune.plan(bench, wanted, train=train, held=held, seconds=seconds, cost=1.1)

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        from warmstart.engine import finetune

        def groups(net: Any, lr: float) -> Any:
            adapters = [p for name, p in finetune.plain_body(net).named_parameters() if "lora_" in name]
            return finetune.sequence([adapters], lr=lr, decay=1.0, weight_decay=self.options.weight_decay)

        with_adapters = partial(_with_adapters, options=self.options, seed=job.seed)
        return finetune.run(bench, train, held, job, prepare=with_adapters, groups=groups, finish=_merge)


def _with_adapters(body: Any, *, options: Options, seed: int) -> None:
    """Put an adapter into every linear layer of the trunk, in place."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=_layers(body))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, body)


def _layers(body: Any) -> list[str]:
    """Names of the linear layers of the trunk."""
    from warmstart.engine import cut

    trunk = cut.find_trunk(body)
    inside = f"{trunk.path}." if trunk is not None else ""
    return [n for n, m in body.named_modules() if n.startswith(inside) and isinstance(m, _linear_types())]


def _merge(body: Any) -> None:
    """Add every adapter to its weight and take it out, in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(body.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(body, "peft_config"):
        del body.peft_config


def _linear_types() -> tuple[type, ...]:
    """Kinds of layers that peft can adapt; GPT-2 calls its linear layers Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return (nn.Linear, Conv1D)


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import predictor

    return predictor.load(folder, modality=modality, device=device, precision=precision, max_length=max_length)
