"""Makes the .npz files of this folder from networks that the reference implementation saved.

    python make_weights.py FOLDER

FOLDER holds, for each name in CASES, the images and logits as `<name>.npz`, and the state dict as a `.pth`. PyTorch
reads them, so what our own reader makes of such files is not part of this comparison.
"""

import sys
from pathlib import Path

import numpy as np
import torch

CASES = {
    "official_train": "official_train",
    "official_train_odd": "official_train",
    "official_train_ddp": "official_train_ddp",
    "official_train_g2": "official_train_g2",
    "official_train_g4": "official_train_g4",
    "official_train_se": "official_train_se",
}
"""Images and logits, and the state dict they belong to."""


def main(source: Path, target: Path) -> None:
    written: dict[str, dict[str, np.ndarray]] = {}
    for case, checkpoint in CASES.items():
        weights = read(source / f"{checkpoint}.pth")
        # The wrapped checkpoint holds the weights of another one; those are stored once.
        name = next((name for name, known in written.items() if same(known, weights)), checkpoint)
        if name not in written:
            written[name] = weights
            np.savez_compressed(target / f"{name}.weights.npz", **weights)
        with np.load(source / f"{case}.npz") as arrays:
            np.savez_compressed(
                target / f"{case}.npz", images=arrays["images_nhwc"], logits=arrays["logits"], weights=np.array(name)
            )


def read(path: Path) -> dict[str, np.ndarray]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    return {
        name.removeprefix("module."): tensor.numpy()
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(__file__).parent)
