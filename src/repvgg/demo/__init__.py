"""The main job on real data that is already there: train, convert, verify, save, export, and run the export."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from repvgg.base.dependencies import require
from repvgg.base.errors import VerificationError
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.base.progress import working
from repvgg.base.words import counted
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterize
from repvgg.demo.digits import CLASS_NAMES, PREPROCESSING, Digits, load_digits, save_examples
from repvgg.demo.picture import draw_demo
from repvgg.demo.training import train
from repvgg.exporting import export
from repvgg.models.metadata import set_metadata
from repvgg.models.saving import save_model
from repvgg.models.variants import get_variant
from repvgg.runners import load_runner
from repvgg.runners.runner import Runner
from repvgg.verification import VerificationReport, difference, verify
from repvgg.verification.compare import top1_matches

VARIANT = "RepVGG-A0"
LIMIT = 1e-5
"""Relative difference between the forms that the demo accepts; some 80 roundings of float32."""

TIMING_ROUNDS = 5


@dataclass(frozen=True)
class _Row:
    """One form of the trained network, as its own file runs."""

    form: str
    file: str
    parameters: str
    size: int
    accuracy: float
    milliseconds: float
    relative_difference: float
    same_class: int


def run(output: Path, *, epochs: int, seed: int, force: bool, out: Console) -> None:
    """Fills the folder `output`; it appears when everything has succeeded, and says what is in it.

    Raises:
        OutputExistsError: if the folder exists and `force` is not set.
        VerificationError: if any form differs from the trained network.
        MissingDependencyError: without scikit-learn, onnx or onnxruntime.
    """
    refuse_existing(output, force=force)
    for module, extra in (("sklearn", "demo"), ("onnx", "onnx"), ("onnxruntime", "onnx")):
        # Asked for now, not after minutes of training.
        require(module, extra=extra, purpose="The demo")
    started = time.perf_counter()
    with atomic_output(output) as folder:
        folder.mkdir()
        _fill(folder, epochs=epochs, seed=seed, out=out)
    out.print(f"\nEverything is in [bold]{output}/[/] (start with README.md and demo.png).", soft_wrap=True)
    out.print(f"Try: repvgg predict {output}/digits.onnx {output}/examples --top 3", soft_wrap=True)
    out.print(f"{time.perf_counter() - started:.0f} s in all.")


def _fill(folder: Path, *, epochs: int, seed: int, out: Console) -> None:
    keras.utils.set_random_seed(seed)
    digits = load_digits()
    out.print(
        f"{len(digits.train_labels)} digits to train on, {len(digits.test_labels)} to test on; {VARIANT} at 32 px, "
        f"{counted(epochs, 'epoch')}, on {keras.backend.backend()}."
    )
    model = create_model(VARIANT, num_classes=10, input_shape=(32, 32, 3))
    set_metadata(
        model,
        class_names=CLASS_NAMES,
        preprocessing=PREPROCESSING,
        source=f"repvgg demo: scikit-learn digits, {counted(epochs, 'epoch')}, seed {seed}",
    )
    history = train(model, digits, epochs=epochs, seed=seed, out=out)

    with working(out, "checking both forms and the file"):
        deployed = reparameterize(model)
        report = verify(model, deployed, digits.test_images, rtol=LIMIT)
        _require_agreement(report)
        set_metadata(deployed, verification=report.to_dict())
        save_model(model, folder / "digits-train.keras")
        save_model(deployed, folder / "digits-deploy.keras")
        exported = export(deployed, folder / "digits.onnx", images=digits.test_images)
        out.print(f"Converted and verified: {report.summary()}", soft_wrap=True)
        out.print(f"Exported and verified: {exported.report.summary()}", soft_wrap=True)

        parameters = (_trainable(model), deployed.count_params(), deployed.count_params())
        rows, logits = _measure(folder, digits, parameters)
        for row in rows:
            if row.relative_difference > LIMIT or row.same_class != len(digits.test_labels):
                raise VerificationError(
                    f"{row.file} differs from the trained network by {row.relative_difference:.1e} (limit {LIMIT:.0e});"
                    f" {row.same_class} of {len(digits.test_labels)} test images get the same class."
                )
        examples = save_examples(digits, folder / "examples")
        draw_demo(
            folder / "demo.png",
            history=history,
            cost=get_variant(VARIANT).cost(num_classes=10, image_size=32),
            report=report,
            pictures=digits.test_pictures,
            labels=digits.test_labels,
            logits=logits,
            class_names=CLASS_NAMES,
        )
        _write_readme(folder, rows, digits, len(examples))
    out.print(_table(rows, len(digits.test_labels)))


def _require_agreement(report: VerificationReport) -> None:
    if not report.passed:
        raise VerificationError(report.summary())


def _trainable(model: Any) -> int:
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def _measure(folder: Path, digits: Digits, parameters: tuple[int, ...]) -> tuple[list[_Row], np.ndarray]:
    """Every file, loaded again and run on the test images; the runs take turns, and the median time counts."""
    files = ("digits-train.keras", "digits-deploy.keras", "digits.onnx")
    forms = ("training form, Keras", "deploy form, Keras", "deploy form, ONNX Runtime")
    runners: list[Runner] = [load_runner(folder / file) for file in files]
    logits = [runner(digits.test_images) for runner in runners]
    seconds: list[list[float]] = [[] for _ in runners]
    for _ in range(TIMING_ROUNDS):
        for runner, times in zip(runners, seconds, strict=True):
            start = time.perf_counter()
            runner(digits.test_images)
            times.append(time.perf_counter() - start)
    count = len(digits.test_labels)
    rows = [
        _Row(
            form=form,
            file=file,
            parameters=f"{number:,}",
            size=(folder / file).stat().st_size,
            accuracy=float(np.mean(values.argmax(axis=1) == digits.test_labels)),
            milliseconds=float(np.median(times)) * 1e3 / count,
            relative_difference=difference(logits[0], values).relative,
            same_class=top1_matches(logits[0], values),
        )
        for form, file, number, values, times in zip(forms, files, parameters, logits, seconds, strict=True)
    ]
    return rows, logits[-1]


def _table(rows: list[_Row], count: int) -> Table:
    """A column a form, so that it fits 80 characters."""
    table = Table("", title=f"One network, three files, {count} test images", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_column(row.form.replace(", ", "\n"), justify="right")
    table.add_row("file", *(row.file for row in rows))
    table.add_row("parameters", *(row.parameters for row in rows))
    table.add_row("file size", *(f"{row.size / 1e6:.1f} MB" for row in rows))
    table.add_row("accuracy", *(f"{row.accuracy:.2%}" for row in rows))
    table.add_row("ms per image", *(f"{row.milliseconds:.2f}" for row in rows))
    table.add_row("largest relative\ndifference", *(f"{row.relative_difference:.1e}" for row in rows))
    table.add_row("top-1 agreement", *(f"{row.same_class} of {count}" for row in rows))
    return table


def _write_readme(folder: Path, rows: list[_Row], digits: Digits, examples: int) -> None:
    lines = [
        "# RepVGG-A0 on handwritten digits",
        "",
        f"Trained on {len(digits.train_labels)} digits of 32 x 32 pixels, tested on {len(digits.test_labels)} others.",
        "",
        "| file | what it is | accuracy | largest relative difference |",
        "|---|---|---|---|",
        *(
            f"| `{row.file}` | {row.form}, {row.parameters} parameters, {row.size / 1e6:.1f} MB | {row.accuracy:.2%} "
            f"| {row.relative_difference:.1e} |"
            for row in rows
        ),
        f"| `examples/` | {examples} test images, each named after what it shows | | |",
        "| `demo.png` | how it learned, both structures, the error of each block, what the ONNX file says | | |",
        "",
        "Class names and preprocessing are inside the model files. Beside this file:",
        "",
        "    repvgg predict digits.onnx examples --top 3",
        "    repvgg verify digits-train.keras digits.onnx",
        "    repvgg inspect digits-train.keras",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
