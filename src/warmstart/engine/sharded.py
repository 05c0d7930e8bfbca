"""Parameters, gradients and optimiser state shared out among processes (FSDP2, ``torch.distributed.fsdp.fully_shard``).

It stands where ``working.Working`` stands. The learner's own module keeps whole parameters in every process, for validation, checkpoints
and the folder at the end; what is trained is a copy of it, of which each process holds its part (Zhao et al. 2023). A block is put
together when it computes, and its gradients are averaged into the parts. torch's side of it takes half as long to import as torch, and is
imported when it is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.engine import cut


class Sharded:
    """``copy`` is the module in parts, computed with in ``precision``; ``module`` is on ``device``, and follows by ``settle``."""

    def __init__(self, module: nn.Module, precision: torch.dtype, *, world: int, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self.module, self.copy = module, copy.deepcopy(module)
        mesh = init_device_mesh(device.type, (world,))
        policy = MixedPrecisionPolicy(param_dtype=None if precision == torch.float32 else precision, reduce_dtype=torch.float32)
        if (call := getattr(self.copy, "call_blocks", None)) is not None:
            call()
        trunk = cut.find_trunk(self.copy)
        for block in trunk.blocks if trunk is not None else ():
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(self.copy, mesh=mesh, mp_policy=policy)
        named = dict(self.copy.named_parameters())
        self._parts = {parameter: named[name] for name, parameter in module.named_parameters()}

    def part(self, parameter: nn.Parameter) -> nn.Parameter:
        """This process's part of a parameter of the module."""
        return self._parts[parameter]

    def move(self, parameters: Collection[nn.Parameter]) -> None:
        """Only these parameters of the module take gradients from now on."""
        for parameter, part in self._parts.items():
            parameter.requires_grad_(parameter in parameters)
            part.requires_grad_(parameter in parameters)
            parameter.grad = part.grad = None

    def gather(self) -> None:
        """Nothing: gradients come to the parts, averaged."""

    def follow(self) -> None:
        """Nothing: the parts are what an optimiser moves."""

    @torch.no_grad()
    def begin(self) -> None:
        """Let the parts, and the copy's buffers, have the values of the module."""
        for parameter, part in self._parts.items():
            part.copy_(parted(parameter, part))
        for ours, theirs in zip(self.module.buffers(), self.copy.buffers(), strict=True):
            theirs.copy_(ours)

    @torch.no_grad()
    def settle(self) -> None:
        """Let the module have the values of the parts, and the copy's buffers; all processes call it together."""
        for parameter, part in self._parts.items():
            parameter.copy_(whole(part))
        for ours, theirs in zip(self.module.buffers(), self.copy.buffers(), strict=True):
            ours.copy_(theirs)

    def validated(self) -> nn.Module:
        """What held-out data are measured with, after ``settle``: the whole module, in float32."""
        return self.module


def whole(tensor: Tensor) -> Tensor:
    """A tensor that lies in parts, put together in all processes, which call this together; any other as it is."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def parted(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor that all processes have, in parts as ``like`` lies; as it is where ``like`` is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = DTensor.from_local(tensor.detach().to(like.device), like.device_mesh, [Replicate()], run_check=False)
    return everywhere.redistribute(placements=like.placements)
