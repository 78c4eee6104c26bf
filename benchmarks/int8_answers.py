"""What exported files answer in the runtimes of this process; int8_accuracy.py starts it as on another processor.

    scripts/without_vnni python benchmarks/int8_answers.py images.npy answers.npz model.onnx model.xml

`images.npy` holds prepared images (N, H, W, C) in float32; `answers.npz` gets the logits (N, classes) of each file by
its name.
"""

import sys
from pathlib import Path

import numpy as np

BATCH = 32


def main() -> None:
    images, answers, *files = map(Path, sys.argv[1:])

    from repvgg.runners import load_runner
    from repvgg.runners.classifier import class_logits

    prepared = np.load(images)
    found = {}
    for file in files:
        runner = load_runner(file)
        parts = (prepared[start : start + BATCH] for start in range(0, len(prepared), BATCH))
        found[file.name] = np.concatenate([class_logits(runner, part) for part in parts])
        print(file.name, flush=True)
    np.savez(answers, **found)


if __name__ == "__main__":
    main()
