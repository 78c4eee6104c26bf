"""Makes files like those in `reference/`, with the reference implementations themselves.

    python make_reference.py OUTPUT --official repvgg --plus repvggplus --timm timm.models.byobnet

Each option names a module by its import path (put its folder on PYTHONPATH); what is not named is not made. Official
modules are `repvgg.py` and `repvggplus.py` of https://github.com/DingXiaoH/RepVGG; as the first one has this package's
name, keep the two off each other's path. Needs torch, and safetensors for timm's file. Weights and batch statistics are
random and depend on the versions of torch and NumPy, so new files hold other numbers than the old ones: they replace
them all together.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

DEPTHS, WIDTHS, CLASSES = [2, 2, 3, 1], [0.25] * 4, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    for library in ("official", "plus", "timm"):
        parser.add_argument(f"--{library}", metavar="MODULE")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    writer = Writer(arguments.output)
    for library, make in (("official", official), ("plus", plus), ("timm", timm)):
        module = getattr(arguments, library)
        if module is not None:
            make(import_module(module), writer)
    (arguments.output / "index.json").write_text(json.dumps(writer.rows, indent=1) + "\n")


class Writer:
    """Keeps the list of what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, str]] = []

    def state(self, saved: Any, name: str, **options: Any) -> None:
        torch.save(saved, self.folder / name, **options)

    def answers(self, model: torch.nn.Module, file: str, note: str, side: int = 64, suffix: str = "") -> None:
        """The logits of two random images."""
        images = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)
        with torch.no_grad():
            outputs = model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        logits = (
            {"logits": outputs}
            if isinstance(outputs, torch.Tensor)
            else {f"logits_{name}": value for name, value in outputs.items() if name != "L2"}
        )
        expected = f"{Path(file).stem}{suffix}.npz"
        np.savez(self.folder / expected, images_nhwc=images, **{name: value.numpy() for name, value in logits.items()})
        self.rows.append({"file": file, "expected": expected, "note": note})


def randomized(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Batch statistics as training leaves them: fresh ones hide most mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.5, 2)
    return model


def official(module: Any, writer: Writer) -> None:
    def network(**options: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return randomized(module.RepVGG(DEPTHS, CLASSES, WIDTHS, **options))

    model = network()
    writer.state(model.state_dict(), "official_train.pth")
    writer.answers(model, "official_train.pth", "official multi-branch state dict, plain OrderedDict, zip format")
    writer.answers(model, "official_train.pth", "same network, 75x75 input: odd sizes at every stride", 75, "_odd")
    writer.state(model.state_dict(), "official_train_legacy.pth", _use_new_zipfile_serialization=False)
    writer.answers(model, "official_train_legacy.pth", "same, in torch's pre-1.6 (non-zip) file format")
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    writer.state({"model": wrapped, "epoch": 3, "max_accuracy": 12.5}, "official_train_ddp.pth")
    writer.answers(
        model,
        "official_train_ddp.pth",
        "training checkpoint: wrapped in 'model', DDP prefix 'module.', beside other entries",
    )
    deployed = module.repvgg_model_convert(model)
    writer.state(deployed.state_dict(), "official_deploy.pth")
    writer.answers(deployed, "official_deploy.pth", "official single-path (deploy) state dict")
    for groups in (2, 4):
        grouped = network(override_groups_map=dict.fromkeys(range(2, 27, 2), groups))
        writer.state(grouped.state_dict(), f"official_train_g{groups}.pth")
        note = f"groups {groups} on even layers (as B*g{groups})"
        writer.answers(grouped, f"official_train_g{groups}.pth", note)
    attention = network(use_se=True)
    writer.state(attention.state_dict(), "official_train_se.pth")
    writer.answers(attention, "official_train_se.pth", "squeeze-excite before ReLU, C/16 (as D2se)")
    deployed = module.repvgg_model_convert(attention)
    writer.state(deployed.state_dict(), "official_deploy_se.pth")
    writer.answers(deployed, "official_deploy_se.pth", "the same in deploy form")


def plus(module: Any, writer: Writer) -> None:
    torch.manual_seed(0)
    model = randomized(module.RepVGGplus([2, 2, 4, 1], CLASSES, WIDTHS, use_post_se=True))
    writer.state(model.state_dict(), "plus_train.pth")
    note = "RepVGGplus: SE after ReLU (C/4), stage3 in two halves, auxiliary heads; logits per head"
    writer.answers(model, "plus_train.pth", note)


def timm(module: Any, writer: Writer) -> None:
    from safetensors.torch import save_file

    def network(groups: int) -> torch.nn.Module:
        # timm counts groups anew in each stage: every second block of it, whatever its place in the network.
        blocks = tuple(
            module.ByoBlockCfg(
                type="rep",
                d=depth,
                c=int(width * factor),
                s=2,
                gs=(lambda channels, index: channels // groups if (index + 1) % 2 == 0 else 0) if groups else 0,
            )
            for depth, width, factor in zip(DEPTHS, (64, 128, 256, 512), WIDTHS, strict=True)
        )
        torch.manual_seed(0)
        settings = module.ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=16)
        return randomized(module.ByobNet(settings, num_classes=CLASSES))

    model = network(0)
    save_file(model.state_dict(), writer.folder / "timm_train.safetensors")
    writer.answers(model, "timm_train.safetensors", "timm multi-branch state dict")
    grouped = network(4)
    writer.state(grouped.state_dict(), "timm_train_g4.pth")
    writer.answers(grouped, "timm_train_g4.pth", "timm, groups 4 in every second block of a stage")


if __name__ == "__main__":
    main()
