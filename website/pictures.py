"""`python -m website.pictures`: the pictures of docs/explanation, from a small network that it trains on the digits."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

import repvgg
from repvgg.base.drawing import DARK, PALE, STRONG, WARNING
from repvgg.demo.digits import load_digits

FOLDER = Path(__file__).parents[1] / "docs" / "explanation"
EARLY, LATE = "stage1_block1", "stage3_block1"
"""Blocks with all three branches."""

EPOCHS, BATCH = 12, 64


def main() -> None:
    """Trains, and writes all pictures."""
    import matplotlib as mpl

    mpl.use("agg")
    model = trained()
    draw_folding(model.get_layer(EARLY), FOLDER / "folding.png")
    draw_padding(FOLDER / "padding.png")
    draw_ranges(model.get_layer(LATE), FOLDER / "int8.png")


def trained() -> Any:
    """A narrow RepVGG that has learned the digits."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = repvgg.RepVGG([2, 2, 3, 1], [0.5] * 4, num_classes=10, input_shape=(32, 32, 3))
    steps = EPOCHS * (len(digits.train_labels) // BATCH + 1)
    schedule = keras.optimizers.schedules.CosineDecay(0.05, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    model.fit(digits.train_images, digits.train_labels, BATCH, EPOCHS, verbose=0)
    return model


def factor(norm: Any) -> np.ndarray:
    """What a normalization multiplies each channel by."""
    return np.asarray(keras.ops.convert_to_numpy(norm.gamma / keras.ops.sqrt(norm.moving_variance + norm.epsilon)))


def branch_kernels(block: Any) -> dict[str, np.ndarray]:
    """Each branch as a kernel (3, 3, in, out), and their sum."""
    large, small = (np.asarray(keras.ops.convert_to_numpy(branch.kernel)) for branch in (block.conv3x3, block.conv1x1))
    centre = np.zeros_like(large)
    centre[1, 1] = small[0, 0] * factor(block.conv1x1.norm)
    skip = np.zeros_like(large)
    skip[1, 1] = np.diag(factor(block.identity))
    kernels = {"3x3 branch": large * factor(block.conv3x3.norm), "1x1 branch": centre, "identity": skip}
    return {**kernels, "folded": np.asarray(block.get_equivalent_kernel_bias()[0])}


def draw_folding(block: Any, path: Path) -> None:
    """Kernels of one output channel, a row for each of a few input channels."""
    import matplotlib.pyplot as plt

    kernels = branch_kernels(block)
    large = np.abs(kernels["3x3 branch"]).max(axis=(0, 1))  # (in, out)
    channel = int(large.max(axis=0).argmax())
    rows = list(dict.fromkeys([channel, *np.argsort(-large[:, channel])]))[:3]
    # The identity's one is far above all others, which would be of one colour.
    limit = 1.5 * large[rows, channel].max()
    figure, axes = plt.subplots(len(rows), 4, figsize=(8, 5.4), layout="constrained")
    for row, line in zip(rows, axes, strict=True):
        for (_, kernel), place, sign in zip(kernels.items(), line, ("+", "+", "=", ""), strict=True):
            values = kernel[:, :, row, channel]
            place.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
            for (y, x), value in np.ndenumerate(values):
                color = "white" if abs(value) > 0.6 * limit else DARK
                place.text(x, y, f"{value:.2f}" if value else "0", ha="center", va="center", color=color, fontsize=9)
            place.set_xticks([])
            place.set_yticks([])
            place.text(1.08, 0.5, sign, transform=place.transAxes, ha="center", va="center", fontsize=16)
        line[0].set_ylabel("the same input channel" if row == channel else f"input channel {row}")
    for title, place in zip(kernels, axes[0], strict=True):
        place.set_title(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_padding(path: Path) -> None:
    """Six pixels in a row under kernels of stride 2, padded in both ways."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(8, 5), layout="constrained")
    for place, (title, first) in zip(
        axes,
        (('TensorFlow\'s "same": one zero, behind', 0), ("symmetric, as PyTorch: a zero on each side", -1)),
        strict=True,
    ):
        for pixel in range(-1, 7):
            inside = 0 <= pixel < 6
            padded = (pixel < 0 and first < 0) or pixel == 6
            if inside or padded:
                place.add_patch(
                    plt.Rectangle((pixel - 0.5, 0), 1, 1, fill=not inside, facecolor="#eeeeee", edgecolor=DARK)
                )
                place.text(pixel, 0.5, str(pixel) if inside else "0", ha="center", va="center", color=DARK)
        for step in range(3):
            left, height = first + 2 * step - 0.5, 1.25 + 0.3 * step
            place.plot([left, left + 3], [height, height], color=STRONG, linewidth=4, solid_capstyle="butt")
            place.plot(left + 1.5, height, marker="D", color=STRONG, markersize=9)
            place.plot(2 * step, -0.35, marker="o", color=WARNING, markersize=9)
            apart = left + 1.5 != 2 * step
            place.plot([left + 1.5, 2 * step], [height, -0.35], color=WARNING if apart else PALE, linestyle=":")
        place.set_title(title, loc="left")
        place.set_xlim(-1.8, 9.6)
        place.set_ylim(-0.7, 2.2)
        place.axis("off")
        place.text(7.0, 1.5, "3x3 kernel and its centre", color=STRONG, va="center")
        place.text(7.0, -0.35, "1x1 kernel", color=WARNING, va="center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_ranges(block: Any, path: Path) -> None:
    """How many steps of its own grid each weight has, in the 3x3 branch alone and in the folded kernel."""
    import matplotlib.pyplot as plt

    kernels = branch_kernels(block)
    edges = np.arange(-0.5, 128)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for name, place in zip(("3x3 branch", "folded"), axes, strict=True):
        weights = np.abs(kernels[name])
        steps = np.round(127 * weights / weights.max(axis=(0, 1, 2))).ravel()
        counts, _ = np.histogram(steps, edges)
        place.bar(edges[:-1] + 0.5, 100 * counts / steps.size, color=[WARNING, *[STRONG] * (len(counts) - 1)])
        place.set_title(f"{name}: {np.mean(steps == 0):.0%} become 0", loc="left", fontsize=11)
        place.set_xlabel("size in steps of the channel's grid, which has 127")
        place.set_xlim(-1.5, 60)
        place.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("percent of the weights")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
