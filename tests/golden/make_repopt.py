"""Makes `repopt.npz`: a small RepOpt-VGG of the authors' own code, and some steps of their optimizers.

    PYTHONPATH=RepOptimizers python make_repopt.py OUTPUT

`RepOptimizers` is a copy of https://github.com/DingXiaoH/RepOptimizers. The file holds, in double precision:

- images (N, H, W, C) and labels;
- `target/` and `search/`: state dicts of the plain network and of the one with trainable factors, random weights and
  statistics, and the logits of both;
- `multipliers/sgd/` and `multipliers/adamw/`: what gradients are multiplied with, given the factors of `search/`;
- `sgd/` and `adamw/`: the plain network after `STEPS` steps on all images by the authors' optimizers.
"""

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from repoptimizer.repoptimizer_adamw import RepOptimizerAdamW
from repoptimizer.repoptimizer_sgd import RepOptimizerSGD
from repoptimizer.repoptvgg_impl import RepOptVGGHandler, extract_scales
from repoptimizer.repoptvgg_model import RepOptVGG

STEPS = 3
DEPTHS, WIDTHS, CLASSES = [1, 2, 1, 1], [0.125, 0.0625, 0.03125, 0.03125], 5
DECAY = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    generator = torch.Generator().manual_seed(0)
    # Keras rounds images to single precision.
    images = torch.randn((6, 3, 48, 40), generator=generator).double()
    labels = torch.arange(6) % CLASSES
    target, search = (network(mode, generator) for mode in ("target", "hs"))
    found: dict[str, Any] = {"images": images.permute(0, 2, 3, 1).numpy(), "labels": labels.numpy()}
    for name, model in (("target", target), ("search", search)):
        found |= {f"{name}/{key}": value for key, value in arrays_of(model).items()}
        with torch.no_grad():
            found[f"{name}_logits"] = model.eval()(images).numpy()
    for rule in ("sgd", "adamw"):
        trained = copy.deepcopy(target).train()
        handler = RepOptVGGHandler(trained, extract_scales(search), reinit=False, cpu_mode=True, update_rule=rule)
        multipliers = handler.generate_grad_mults()
        names = {id(parameter): name for name, parameter in trained.named_parameters()}
        found |= {f"multipliers/{rule}/{names[id(key)]}": value.numpy() for key, value in multipliers.items()}
        optimizer = optimizer_of(rule, multipliers, trained)
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(trained(images), labels).backward()
            optimizer.step()
        found |= {f"{rule}/{key}": value for key, value in arrays_of(trained).items()}
    np.savez_compressed(output, **found)
    print(f"{output}: {output.stat().st_size:,} bytes", file=sys.stderr)


def network(mode: str, generator: torch.Generator) -> Any:
    model = RepOptVGG(DEPTHS, CLASSES, WIDTHS, mode=mode).double()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 3, generator=generator)
        elif name.endswith("bn.weight"):
            tensor.uniform_(0.7, 1.7, generator=generator)
        elif ".scale_" in name:
            tensor.uniform_(0.3, 1.5, generator=generator)
        elif tensor.ndim:
            tensor.normal_(0, 0.3, generator=generator)
    return model


def optimizer_of(rule: str, multipliers: Any, model: Any) -> Any:
    """With decay on kernels and on the classifier's weights, as the authors' `set_weight_decay` has it."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    if rule == "sgd":
        return RepOptimizerSGD(multipliers, groups, lr=0.1, momentum=0.9, weight_decay=DECAY, nesterov=True)
    return RepOptimizerAdamW(multipliers, groups, lr=0.01, weight_decay=DECAY, eps=1e-12)


def arrays_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items() if tensor.ndim}


if __name__ == "__main__":
    main()
