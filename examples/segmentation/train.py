"""Semantic segmentation of street scenes: trains a network, converts it, proves that nothing changed, and exports it.

python train.py camvid --network unet --epochs 60 --run runs/unet

The folder has `train` and `val`, each with `images/NAME.jpg` and `labels/NAME.png` (see scenes.py). A run that was
stopped goes on with the same command, and for longer with more epochs. It leaves train.keras, deploy.keras, model.onnx,
report.json and predictions.png.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress, TimeElapsedColumn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from networks import NETWORKS
from picture import draw
from scenes import CLASSES, VOID, Scenes

import repvgg

BATCH = 8


def main(
    data: Annotated[Path, typer.Argument(help="The folder with train and val.")],
    network: Annotated[str, typer.Option(help="unet or pspnet.")] = "unet",
    variant: Annotated[str, typer.Option(help="The backbone, a name of repvgg.list_variants().")] = "RepVGG-A0",
    run: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/segmentation"),
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    image_size: Annotated[tuple[int, int], typer.Option(help="Height and width of whole images.")] = (180, 240),
    crop: Annotated[tuple[int, int], typer.Option(help="Height and width of the crops to train on.")] = (144, 192),
    batch: Annotated[int, typer.Option(min=1)] = BATCH,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Trains, converts, verifies and exports a network for semantic segmentation."""
    if network not in NETWORKS:
        raise typer.BadParameter(f"'{network}' is none of {', '.join(NETWORKS)}.")
    training, validation = Scenes(data / "train"), Scenes(data / "val")
    if len(training) < batch:
        raise typer.BadParameter(f"There are {len(training)} training scenes, fewer than --batch {batch}.")
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)

    def build(size: tuple[int, int]) -> Any:
        return NETWORKS[network](repvgg.get_variant(variant).architecture, size, len(CLASSES))

    on_crops = trained(lambda: build(crop), training, run, epochs, batch, crop, learning_rate, seed)
    model = build(image_size)
    model.set_weights(on_crops.get_weights())
    ship(model, validation, run, image_size)


def trained(
    build: Callable[[], Any],
    scenes: Scenes,
    run: Path,
    epochs: int,
    batch: int,
    crop: tuple[int, int],
    learning_rate: float,
    seed: int,
) -> Any:
    """The network after `epochs`; one that was stopped goes on behind its last whole epoch."""
    steps = len(scenes) // batch
    last = run / "last.keras"
    if last.exists():
        model = repvgg.load_model(last)
    else:
        model = build()
        model.compile(
            keras.optimizers.AdamW(learning_rate, weight_decay=1e-2),
            # The mean over the pixels that count: void weighs nothing.
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
            # On a CPU TensorFlow's own kernels are faster than XLA; JAX has no others.
            jit_compile=keras.backend.backend() == "jax",
        )
    done = int(model.optimizer.iterations) // steps
    weights = scenes.class_weights()
    print(f"{model.name}: {len(scenes)} scenes, {steps} steps an epoch, epoch {done + 1} to {epochs}")
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), "loss {task.fields[loss]:.3f}") as progress:
        bar = progress.add_task(f"{model.name}, {epochs} epochs", total=epochs * steps, loss=float("nan"))
        progress.update(bar, completed=done * steps)
        for epoch in range(done, epochs):
            start, losses = time.perf_counter(), []
            for images, labels, counts in scenes.epoch(epoch, batch, crop, weights, seed):
                model.optimizer.learning_rate = learning_rate * share(int(model.optimizer.iterations), epochs * steps)
                model.reset_metrics()
                losses.append(float(model.train_on_batch(images, labels, sample_weight=counts)))
                progress.update(bar, advance=1, loss=losses[-1])
            save(model, last)
            seconds = time.perf_counter() - start
            progress.console.print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {seconds:.0f} s")
            with (run / "history.jsonl").open("a") as history:
                row = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "seconds": seconds}
                history.write(json.dumps(row) + "\n")
    return model


def share(step: int, steps: int) -> float:
    """Of the largest learning rate: up in a straight line for a tenth of the steps, then down along a cosine."""
    warm_up = max(steps // 10, 1)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def save(model: Any, path: Path) -> None:
    """Writes the model with its optimizer; a kill in between leaves the file of before."""
    temporary = path.with_name(f"writing-{path.name}")
    model.save(temporary)
    temporary.replace(path)


def ship(model: Any, scenes: Scenes, run: Path, image_size: tuple[int, int]) -> None:
    """Converts, verifies and exports; measures what was written, not what is in memory."""
    images = np.stack([picture for picture, _ in scenes.whole(image_size)])
    labels = np.stack([classes for _, classes in scenes.whole(image_size)])
    repvgg.set_metadata(model, class_names=CLASSES)
    deployed = repvgg.reparameterize(model)
    conversion = repvgg.verify(model, deployed, images)
    print(conversion.summary())
    repvgg.save_model(model, run / "train.keras", force=True)
    repvgg.save_model(deployed, run / "deploy.keras", force=True)
    export = repvgg.export(deployed, run / "model.onnx", images=images[:8], force=True)
    print(export.report.summary())
    report: dict[str, Any] = {"relative_error": conversion.max_relative_error, "forms": {}}
    predicted: dict[str, np.ndarray] = {}
    runners = {name: repvgg.load_runner(run / name) for name in ("train.keras", "deploy.keras", "model.onnx")}
    times = milliseconds(runners, images[:1])
    for name, runner in runners.items():
        logits = np.concatenate([runner(image[None]) for image in images])
        predicted[name] = logits.argmax(-1)
        ious = intersection_over_union(labels, predicted[name])
        report["forms"][name] = {
            "mean_iou": float(np.nanmean(ious)),
            "pixel_accuracy": float(np.mean((labels == predicted[name])[labels != VOID])),
            "iou": dict(zip(CLASSES, ious.tolist(), strict=True)),
            "milliseconds": times[name],
        }
        if name == "train.keras":
            reference = logits
        else:
            report["forms"][name].update(disagreement(reference, predicted[name]))
        print(f"{name}: mIoU {np.nanmean(ious):.2%}, {times[name]:.1f} ms a scene")
    (run / "report.json").write_text(json.dumps(report, indent=1))
    title = f"{model.name}, mIoU {report['forms']['model.onnx']['mean_iou']:.1%}"
    draw(images, labels, predicted["model.onnx"], run / "predictions.png", title)


def milliseconds(runners: Mapping[str, repvgg.Runner], image: np.ndarray, rounds: int = 20) -> dict[str, float]:
    """What one scene takes each: the median of `rounds`, in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for place in range(rounds + 2):
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(image)
            if place >= 2:  # the first ones compile and allocate
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def intersection_over_union(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(classes,): of the pixels that are a class or are taken for it, the share that is both; void pixels left out.

    A class that is nowhere has none (nan).
    """
    counted = labels != VOID
    count = len(CLASSES)
    pairs = np.bincount(labels[counted] * count + predicted[counted], minlength=count**2).reshape(count, count)
    both = np.diag(pairs)
    with np.errstate(invalid="ignore"):
        return both / (pairs.sum(0) + pairs.sum(1) - both)


def disagreement(reference: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Pixels that another form gives another class, and by how much the reference preferred its own, at most.

    Two forms of one network differ by roundings, which decide where two classes are nearly equal.
    """
    differ = reference.argmax(-1) != predicted
    rows = reference[differ]
    margins = rows.max(-1) - np.take_along_axis(rows, predicted[differ][:, None], -1)[:, 0]
    return {
        "other_pixels": int(differ.sum()),
        "largest_margin": float(margins.max(initial=0) / np.abs(reference).max()),
    }


if __name__ == "__main__":
    typer.run(main)
