"""The training form as the official repository defines it, in `torch.nn` and under the official names.

Each block is relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)), the last branch where input and output have one shape;
normalization has epsilon 1e-5 and momentum 0.1, PyTorch's defaults; then global average pooling and a linear layer.
"""

import torch
from torch import nn

from repvgg import Architecture
from repvgg.core.architecture import BlockSpec


def conv_bn(spec: BlockSpec, kernel_size: int) -> nn.Sequential:
    """A convolution without bias, and its normalization."""
    branch = nn.Sequential()
    branch.add_module(
        "conv",
        nn.Conv2d(
            spec.in_channels,
            spec.filters,
            kernel_size,
            spec.strides,
            padding=kernel_size // 2,
            groups=spec.groups,
            bias=False,
        ),
    )
    branch.add_module("bn", nn.BatchNorm2d(spec.filters))
    return branch


class Block(nn.Module):
    """Three branches, or two where the shape changes."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.rbr_dense = conv_bn(spec, 3)
        self.rbr_1x1 = conv_bn(spec, 1)
        self.rbr_identity = nn.BatchNorm2d(spec.filters) if spec.shape.keeps_shape else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        return torch.relu(total)


class Network(nn.Module):
    """Images (N, C, H, W) -> logits (N, classes)."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        stages: dict[int, list[Block]] = {}
        for spec in architecture.blocks():
            stages.setdefault(spec.stage, []).append(Block(spec))
        for stage, blocks in stages.items():
            # The stem is one block, and is named without a number.
            self.add_module(f"stage{stage}", nn.Sequential(*blocks) if stage else blocks[0])
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(spec.filters, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, stage in self.named_children():
            if name.startswith("stage"):
                x = stage(x)
        return self.linear(self.gap(x).flatten(1))
