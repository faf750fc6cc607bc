"""Shard the frozen base weights over processes with FSDP2. Each process also has the complete adapter.

Nearly all memory is needed for the base. An adapter with its gradient and Adam's moments takes 16 bytes per parameter
(0.7 GB for rank 16 on an 8B model). Because each process has a complete copy, it can be summed in float32, clipped,
saved and resumed on any number of processes without gathering.

Source: Zhao et al. 2023, arXiv:2304.11277 (FSDP); torch.distributed.fsdp.fully_shard (FSDP2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlquarry.errors import TrainingError
from sqlquarry.training.steps.world import World

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def shard_base(
    model: PeftModel,
    world: World,
    *,
    shard_group_size: int,
    cpu_offload: bool,
    fill: Callable[[nn.Module], None] | None = None,
) -> None:
    """Shard every frozen parameter of a PEFT model, decoder layer by decoder layer, in place.

    Args:
        model: a PEFT model on `world`'s device.
        world: the processes.
        shard_group_size: number of processes that share one copy: all of them, or those of one machine (HSDP), which
            avoids traffic over the network.
        cpu_offload: keep the parts in CPU memory and copy them to the GPU layer by layer.
        fill: loads the weights of a part of the model before it is sharded. None if they are already loaded.

    Raises:
        TrainingError: 4-bit weights are stored in a dtype that FSDP2 changes, or a parameter was not sharded. Training
            would silently use different weights, or need the memory of the complete base.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    _require_movable(model)
    mesh = _mesh(world, shard_group_size)
    policy = CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if cpu_offload else OffloadPolicy()
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    decoder = model.get_base_model()
    embeddings, head = decoder.get_input_embeddings(), decoder.get_output_embeddings()
    # Embeddings and head are separate parts, so that they are not gathered at the same time. A tied matrix stays with
    # the rest of the decoder.
    ends = [embeddings, head] if embeddings.weight is not head.weight else []
    for part in (*decoder.model.layers, *ends, decoder):
        if fill:
            fill(part)
        again = part not in (head, decoder)  # the head's backward pass comes next
        fully_shard(part, mesh=mesh, offload_policy=policy, ignored_params=adapter, reshard_after_forward=again)
    for part in (*ends[:1], *decoder.model.layers):
        if any(parameter.requires_grad for parameter in part.parameters()):
            break
        # This part has no backward pass. FSDP2 would gather weights for it that nobody waits for, and a CUDA graph
        # cannot contain that.
        part.set_unshard_in_backward(False)
    _require_sharded(model)


def _mesh(world: World, shard_group_size: int) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    if shard_group_size >= world.size:
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
    groups = world.size // shard_group_size
    return init_device_mesh(world.device.type, (groups, shard_group_size), mesh_dim_names=("replicate", "shard"))


def _require_movable(model: PeftModel) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if hasattr(parameter, "quant_state") and parameter.dtype != torch.float32:
            raise TrainingError(
                f"{name} stores 4-bit weights as {parameter.dtype}, and FSDP2 changes some values of that dtype. Load "
                'the base model with QuantizationRecipe(storage_dtype="float32").'
            )


def _require_sharded(model: PeftModel) -> None:
    from torch.distributed.tensor import DTensor

    whole = [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and not isinstance(parameter, DTensor)
    ]
    if whole:
        raise TrainingError(
            f"{len(whole)} base model parameters are not sharded, such as {whole[0]}, so each process would need the "
            'memory of all of them. Set sharding="none".'
        )


def release(model: PeftModel) -> None:
    """Free the weights that FSDP2 keeps gathered after a forward pass in case a backward pass follows."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
