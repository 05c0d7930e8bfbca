"""A network as what is saved, loaded and asked: raw inputs in, logits out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from warmstart.core import registry
from warmstart.core.protocols import Encoder, Input, Modality
from warmstart.engine import answers, batches, encodings, packed, store
from warmstart.engine.network import Network, PooledHead

if TYPE_CHECKING:
    from warmstart.engine.workbench import Workbench

HEAD = "head.safetensors"
STRUCTURE = "head.json"
"""Of a structured task: its name, and the settings that its head is made from."""


class NetworkPredictor:
    """Body + head in float32 for saving, and in the chosen precision for predicting."""

    def __init__(
        self,
        network: Network,
        encoder: Encoder,
        *,
        device: torch.device,
        precision: torch.dtype,
        max_length: int,
        task: Any = None,
    ) -> None:
        self.network, self.encoder, self.task = network.eval(), encoder, task
        self.device, self.precision, self.max_length = device, precision, max_length
        self._serving: Network | None = None

    @property
    def serving(self) -> Network:
        """The network that predicts: body in the chosen precision, pooled head in float32."""
        if self._serving is None:
            self._serving = in_precision(self.network, self.precision)
            if self._serving is not self.network:
                packed.prepare(self._serving.body)
        return self._serving

    @torch.inference_mode()
    def logits(self, values: Sequence[Input], *, quiet: bool = True) -> NDArray[np.float32]:
        """(N, C), or compact answers, in the order of ``values``, in bounded memory: rows go through in windows, sorted by length."""
        found: list[NDArray[np.float32]] = []
        with tqdm(total=len(values), desc="predict", unit="row", disable=True if quiet else None, leave=False) as bar:
            for encoded in encodings.windows(self.encoder, values):
                parts, order = [], []
                for part, length in batches.frozen([self.encoder.size(e) for e in encoded], self.network.body):
                    chosen = self.encoder.collate([encoded[int(i)] for i in part], length=length)
                    outputs = self.serving({k: v.to(self.device) for k, v in chosen.items()}).float()
                    structured = self.network.structured
                    parts.append(answers.compact(self.task, self.serving.head, outputs) if structured else outputs.cpu().numpy())
                    order.append(part)
                    bar.update(len(part))
                if parts:
                    found.append(answers.joined(parts, order))
        return answers.joined(found) if found else np.empty((0, 0), dtype=np.float32)

    def save(self, folder: Path, *, labels: Sequence[str], temperature: float) -> None:
        """The body as transformers writes it, the head (divided by the temperature) beside or inside it, and the tokenizer."""
        if self.network.structured:
            store.save_transformers(self.network.body, folder)
            store.write_tensors(folder / HEAD, self.network.head.state_dict())
            store.write_json(folder / STRUCTURE, {"task": self.task.name, "settings": self.network.head.settings})
        else:
            with divided(self.network, temperature, len(labels)):
                store.save_transformers(self.network.body, folder)
                if self.network.head is not None:
                    save_head(self.network.head, folder)
        self.encoder.save(folder)


def of(bench: Workbench, network: Network) -> NetworkPredictor:
    """A network of a bench's body as what is saved and asked."""
    return NetworkPredictor(
        network, bench.encoder, device=bench.device, precision=bench.precision, max_length=bench.max_length, task=bench.task
    )


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> NetworkPredictor:
    """What ``NetworkPredictor.save`` wrote."""
    encoder = modality.encoder(folder, max_length)
    structure, task = store.read_object(folder / STRUCTURE), None
    if structure:
        task = registry.create("tasks", structure["task"])
        head = task.build_head(structure["settings"])
        head.load_state_dict(store.read_tensors(folder / HEAD))
        net = Network(store.load_body(folder), head)
    else:
        net = load_network(folder)
    return NetworkPredictor(net.to(device), encoder, device=device, precision=precision, max_length=max_length, task=task)


def save_head(head: PooledHead, folder: Path) -> None:
    """Write a pooled head beside its body."""
    store.write_tensors(folder / HEAD, {**head.state_dict(), "points": torch.tensor(head.points, dtype=torch.int64)})


def load_network(folder: Path) -> Network:
    """Body and pooled head, or a classifier of transformers, in float32."""
    if not (folder / HEAD).exists():
        return Network(store.load_native(folder), None)
    tensors = store.read_tensors(folder / HEAD)
    head = PooledHead(tensors["points"].tolist(), *(tensors[n] for n in ("weight", "bias", "shift", "scale")))
    return Network(store.load_body(folder), head)


def in_precision(network: Network, precision: torch.dtype) -> Network:
    """A copy whose body computes in ``precision`` (the network itself for float32)."""
    if precision == torch.float32:
        return network
    twin = copy.deepcopy(network)
    twin.body.to(precision)
    return twin.eval()


@contextmanager
def divided(network: Network, temperature: float, n_labels: int) -> Iterator[None]:
    """Within the block logits are divided by ``temperature``, folded into the last linear layer, so that any reader of the weights
    gets calibrated ones. Afterwards the network has its own bits back."""
    layer = final_layer(network, n_labels)
    before = [parameter.detach().clone() for parameter in layer]
    with torch.no_grad():
        for parameter in layer:
            parameter.div_(temperature)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, own in zip(layer, before, strict=True):
                parameter.copy_(own)


def final_layer(network: Network, n_labels: int) -> list[Tensor]:
    """Weight and bias of the layer that makes the logits."""
    if network.head is not None:
        return [network.head.weight, network.head.bias]
    body = network.body
    inner = getattr(body, getattr(body, "base_model_prefix", ""), None)
    inside = {id(m) for m in inner.modules()} if isinstance(inner, nn.Module) else set()
    last = [m for m in body.modules() if isinstance(m, nn.Linear) and m.out_features == n_labels and id(m) not in inside][-1]
    return [last.weight] if last.bias is None else [last.weight, last.bias]
