"""What each of two processes does in test_processes.py: a step with the weights of every layer in pieces (FSDP)."""

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import seeless as sl
from tinies import TINIES, make_inputs

ROWS = [[[5, "image:0", 9], [3, "image:1", 4, "image:2", 8]], [[4, "image:3", 12], [2, "image:4", 3]]]


def step(own, rank, strategy, **sharding):
    """Loss, and gradients averaged over the processes."""
    model = own.build("sdpa", torch.float64).train()
    inputs = make_inputs(model, own, ROWS[rank])
    inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    with sl.apply(model, strategy):
        if sharding:
            for layer in [*model.model.language_model.layers, *model.model.vision_tower.encoder.layers]:
                fully_shard(layer, **sharding)
            fully_shard(model, **sharding)
        loss = model(**inputs, labels=labels, use_cache=False).loss
        loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and sharding:
            found[name] = parameter.grad.full_tensor()
        elif parameter.grad is not None:
            found[name] = parameter.grad.clone()
            distributed.all_reduce(found[name], distributed.ReduceOp.SUM)
            found[name] /= 2
    return loss, found


def main():
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, mesh = distributed.get_rank(), init_device_mesh("cpu", (2,))
    own = TINIES[0]
    for name in ("pyramiddrop", "uniform", "fastv", "fastervlm"):
        strategy = sl.get(name) if name == "pyramiddrop" else sl.get(name, keep=0.5)
        want, wanted = step(own, rank, strategy)
        loss, found = step(own, rank, strategy, mesh=mesh)
        assert loss.item() == want.item() and found.keys() == wanted.keys(), name
        for parameter, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[parameter], rtol=1e-5, atol=1e-8, msg=f"{name} {parameter}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
