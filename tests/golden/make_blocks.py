"""Makes the files in `blocks/`: single blocks of the authors' own code, with random weights and statistics.

    python make_blocks.py OUTPUT --acb acb --dbb diversebranchblock --mobileone mobileone

Each option names a module by its import path (put its folder on PYTHONPATH); what is not named is not made: `acb.py` of
https://github.com/DingXiaoH/ACNet, `diversebranchblock.py` of https://github.com/DingXiaoH/DiverseBranchBlock and
`mobileone.py` of https://github.com/apple/ml-mobileone. A file holds settings, the state dict, images (N, H, W, C) and
what the block answers in training form and, converted by the authors' code, in deploy form.
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

# In, out, kernel size, stride, groups.
SHAPES = [(6, 6, 3, 1, 1), (4, 8, 3, 2, 1), (8, 8, 3, 1, 2), (6, 6, 3, 2, 6), (4, 4, 5, 1, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    for kind in MAKERS:
        parser.add_argument(f"--{kind}", metavar="MODULE")
    arguments = parser.parse_args()
    for kind, make in MAKERS.items():
        module = getattr(arguments, kind)
        if module is not None:
            for number, shape in enumerate(SHAPES):
                write(arguments.output / f"{kind}-{number}.npz", make(import_module(module), *shape), shape)
    if arguments.mobileone is not None:
        write_network(arguments.output.parent / "mobileone.npz", import_module(arguments.mobileone))


def acb(module: Any, channels: int, filters: int, size: int, stride: int, groups: int) -> tuple[str, int, Any]:
    return "ACBlock", 1, module.ACBlock(channels, filters, size, stride, size // 2, groups=groups)


def dbb(module: Any, channels: int, filters: int, size: int, stride: int, groups: int) -> tuple[str, int, Any]:
    block = module.DiverseBranchBlock(channels, filters, size, stride, size // 2, groups=groups)
    return "DiverseBranchBlock", 1, block


def mobileone(module: Any, channels: int, filters: int, size: int, stride: int, groups: int) -> tuple[str, int, Any]:
    copies = 1 + channels % 4
    block = module.MobileOneBlock(channels, filters, size, stride, size // 2, 1, groups, num_conv_branches=copies)
    block.activation = torch.nn.Identity()
    return "MobileOneBlock", copies, block


MAKERS: dict[str, Callable[..., tuple[str, int, Any]]] = {"acb": acb, "dbb": dbb, "mobileone": mobileone}


def write(path: Path, made: tuple[str, int, Any], shape: tuple[int, ...]) -> None:
    kind, copies, block = made
    generator = torch.Generator().manual_seed(0)
    fill(block, generator)
    images = torch.randn((2, shape[0], 9, 8), generator=generator)
    state = arrays_of(block)
    with torch.no_grad():
        training = block(images)
        (block.reparameterize if kind == "MobileOneBlock" else block.switch_to_deploy)()
        deploy = block(images)
    _, filters, size, stride, groups = shape
    settings = {"kind": kind, "filters": filters, "strides": stride, "groups": groups, "kernel_size": size}
    np.savez_compressed(
        path,
        settings=np.array(json.dumps({**settings, "copies": copies, "activation": None})),
        images=images.permute(0, 2, 3, 1).numpy(),
        training=training.permute(0, 2, 3, 1).numpy(),
        deploy=deploy.permute(0, 2, 3, 1).numpy(),
        **{f"state/{name}": array for name, array in state.items()},
    )


def write_network(path: Path, module: Any) -> None:
    """A small MobileOne with the attention of S4 and the copies of S0."""
    network = module.MobileOne([1, 2, 2, 1], 5, [0.25, 0.1875, 0.125, 0.0625], use_se=True, num_conv_branches=3)
    generator = torch.Generator().manual_seed(0)
    fill(network, generator)
    images = torch.randn((2, 3, 48, 40), generator=generator)
    deployed = module.reparameterize_model(network)
    with torch.no_grad():
        logits, deployed_logits = network(images), deployed(images)
    np.savez_compressed(
        path,
        images=images.permute(0, 2, 3, 1).numpy(),
        training=logits.numpy(),
        deploy=deployed_logits.numpy(),
        **{f"training/{name}": array for name, array in arrays_of(network).items()},
        **{f"deploy/{name}": array for name, array in arrays_of(deployed).items()},
    )


def arrays_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items() if tensor.ndim}


def fill(module: Any, generator: torch.Generator) -> None:
    """Random weights, and statistics as training leaves them."""
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 3, generator=generator)
        elif ("bn" in name and name.endswith("weight") and tensor.ndim == 1) or name.endswith("rbr_skip.weight"):
            tensor.uniform_(0.7, 1.7, generator=generator)
        elif tensor.ndim == 1 or tensor.ndim == 4:
            tensor.normal_(0, 0.3, generator=generator)
    module.eval()


if __name__ == "__main__":
    main()
