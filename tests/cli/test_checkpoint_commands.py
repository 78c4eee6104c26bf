"""`repvgg convert`, `inspect` and `fetch` with checkpoints."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import (
    assert_same_values,
    infer,
    random_images,
    relative_error,
    run_python,
    small_network,
    trained_like,
    values_of,
)
from hub_server import Hub, running
from repvgg.checkpoints import describe_checkpoint, load_checkpoint
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.torch_format.writer import write_torch
from repvgg.cli import main
from repvgg.core.architecture import Adaptation
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.recover import recover
from repvgg.models.saving import load_model, save_model
from sampling import sampled

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["repvgg", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return call


def test_convert_to_keras(run: Run, tmp_path: Path) -> None:
    source = REFERENCE / "official_train.pth"
    status, output, _ = run("convert", source, tmp_path / "a.keras")
    assert status == 0
    assert "(210,730 parameters) -> " in output
    training = load_model(tmp_path / "a.keras")
    assert_same_values(values_of(load_checkpoint(source)), values_of(training))

    assert run("convert", source, tmp_path / "b.keras", "--deploy")[0] == 0
    deployed = load_model(tmp_path / "b.keras")
    metadata = get_metadata(deployed)
    assert metadata.form == "deploy"
    assert metadata.verification is not None
    images = random_images((1, 64, 64, 3))
    assert relative_error(infer(training, images), infer(deployed, images)) < 1e-5


def test_convert_between_dialects(run: Run, tmp_path: Path) -> None:
    middle, back = tmp_path / "timm.safetensors", tmp_path / "back.pth"
    assert run("convert", REFERENCE / "official_train.pth", middle, "--dialect", "timm")[0] == 0
    assert describe_checkpoint(middle).dialect == "timm"
    assert run("convert", middle, back)[0] == 0
    assert_same_values(values_of(load_checkpoint(REFERENCE / "official_train.pth")), values_of(load_checkpoint(back)))
    assert run("convert", back, tmp_path / "deploy.pth", "--deploy", "--dialect", "mmpretrain")[0] == 0
    found = describe_checkpoint(tmp_path / "deploy.pth")
    assert (found.dialect, found.form) == ("mmpretrain", "deploy")


def test_mistakes(run: Run, tmp_path: Path) -> None:
    train, deploy = REFERENCE / "official_train.pth", REFERENCE / "official_deploy.pth"
    for arguments, message in (
        ((train, tmp_path / "a.keras", "--dialect", "timm"), "--dialect is about PyTorch checkpoints"),
        ((train, tmp_path / "a.pth", "--dialect", "tim"), "Did you mean timm"),
        ((train, tmp_path / "a.onnx"), "Received: 'a.onnx'"),
        ((deploy, tmp_path / "a.pth", "--deploy"), "nothing to convert"),
        ((train, tmp_path / "a.pth", "--entry", "model_ema"), "no entry in the checkpoint called 'model_ema'"),
        ((tmp_path / "none.pth", tmp_path / "a.pth"), "does not exist"),
    ):
        status, _, errors = run("convert", *arguments)
        assert status == 2
        assert message in " ".join(errors.split())
    assert not list(tmp_path.iterdir())


def test_inspect(run: Run) -> None:
    status, output, _ = run("inspect", REFERENCE / "official_train_ddp.pth")
    assert status == 0
    for line in (
        "dialect: official",
        "form: training",
        "container: torch-zip",
        "dtype: float32",
        "wrapper: model",
        "prefix: module.",
        "beside the weights: epoch, max_accuracy",
        "classes: 10",
        "parameters in the file: 208,650",
    ):
        assert line in output
    found = json.loads(run("inspect", REFERENCE / "timm_train_g4.pth", "--json")[1])
    assert found["dialect"] == "timm"
    assert [block["groups"] for block in found["blocks"]] == [1, 1, 4, 1, 4, 1, 4, 1, 1]
    status, _, errors = run("inspect", "RepVGG-A0", "--entry", "model")
    assert (status, "is not one" in errors) == (2, True)


def test_inspecting_builds_no_model() -> None:
    code = (
        f"import sys; sys.argv = ['repvgg', 'inspect', {str(REFERENCE / 'plus_train.pth')!r}]\n"
        "from repvgg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'jax', 'torch', 'keras'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_fetch(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    content = (REFERENCE / "timm_train.safetensors").read_bytes()
    code = "import sys; sys.argv = ['repvgg', 'fetch', 'RepVGG-A0']; from repvgg.cli import main; main()"
    with running(Hub("timm/repvgg_a0.rvgg_in1k", content)) as hub, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", hub.address)
        environment.setenv("HF_HOME", str(tmp_path))
        environment.delenv("HF_HUB_CACHE", raising=False)
        environment.delenv("HF_HUB_OFFLINE", raising=False)
        path = Path(run_python(code).strip())
    assert path.read_bytes() == content


def test_fetch_mistakes(run: Run) -> None:
    status, _, errors = run("fetch", "RepVGG-B1g2")
    assert (status, "There are of: RepVGG-A0" in " ".join(errors.split())) == (2, True)


def test_convert_says_what_a_checkpoint_does_not(run: Run, tmp_path: Path) -> None:
    source = REFERENCE / "official_train.pth"
    options = ["--stem-strides", "2", "--output-stride", "8", "--dilate-rest", "--epsilon", "1e-3"]
    status, output, _ = run("convert", source, tmp_path / "a.keras", *options)
    assert status == 0
    adaptation = recover(load_model(tmp_path / "a.keras")).architecture.adaptation
    assert adaptation == Adaptation(output_stride=8, dilate_first=False, epsilon=1e-3)
    status, output, _ = run("inspect", tmp_path / "a.keras")
    for line in ("stem stride: 2", "output stride: 8", "epsilon: 0.001"):
        assert line in output.splitlines()
    assert "1 d2" in output

    status, _, error = run("convert", tmp_path / "a.keras", tmp_path / "back.pth")
    assert status == 2
    assert "Pass --epsilon 0.001" in error
    assert run("convert", tmp_path / "a.keras", tmp_path / "back.pth", "--epsilon", "1e-3")[0] == 0
    status, _, error = run("convert", source, tmp_path / "b.keras", "--output-stride", "12")
    assert (status, error) == (2, "Error: --output-stride is one of 8, 16, 32. Received: 12.\n")


def test_verify_with_logits_of_another_program(run: Run, tmp_path: Path) -> None:
    source, reference = REFERENCE / "official_train.pth", np.load(REFERENCE / "official_train.npz")
    # As PyTorch has them: channels first.
    images = np.ascontiguousarray(reference["images_nhwc"].transpose(0, 3, 1, 2))
    np.savez(tmp_path / "reference.npz", images=images, logits=reference["logits"])
    status, output, _ = run("verify", source, "--logits", tmp_path / "reference.npz")
    assert status == 0
    assert "agree" in output
    assert "reference.npz" in output

    run("convert", source, tmp_path / "other.keras", "--epsilon", "1e-3")
    assert run("verify", tmp_path / "other.keras", "--logits", tmp_path / "reference.npz")[0] == 1
    np.savez(tmp_path / "wrong.npz", images=images, logits=reference["logits"][::-1])
    status, output, error = run("verify", source, "--logits", tmp_path / "wrong.npz")
    assert status == 1
    assert "differ" in output
    assert "A checkpoint does not tell strides, dilation and epsilon." in error

    np.savez(tmp_path / "no_logits.npz", images=images)
    status, _, error = run("verify", source, "--logits", tmp_path / "no_logits.npz")
    assert status == 2
    assert "should hold two arrays" in error
    for arguments in ((source,), (source, source, "--logits", tmp_path / "reference.npz")):
        status, _, error = run("verify", *arguments)
        assert (status, error) == (
            2,
            "Error: Give a second network to compare with, or --logits FILE.npz; one of the two.\n",
        )


def test_a_part_of_a_checkpoint(run: Run, tmp_path: Path) -> None:
    tensors = {
        f"backbone.{name}": tensor for name, tensor in read_tensors(REFERENCE / "official_train.pth").tensors.items()
    }
    write_torch({**tensors, "neck.weight": np.ones(3, np.float32)}, tmp_path / "detector.pth")
    status, _, error = run("convert", tmp_path / "detector.pth", tmp_path / "a.keras")
    assert status == 2
    assert "--prefix backbone. takes" in error
    assert run("convert", tmp_path / "detector.pth", tmp_path / "a.keras", "--prefix", "backbone.")[0] == 0
    status, output, _ = run("inspect", tmp_path / "detector.pth", "--prefix", "backbone.")
    assert status == 0
    assert {"prefix: backbone.", "under other names: neck (1 tensor)"} <= set(output.splitlines())


@pytest.mark.parametrize("policy", sampled(["mixed_bfloat16", "float16"], ["mixed_bfloat16"]))
def test_convert_ships_mixed_precision_as_float32(policy: str, run: Run, tmp_path: Path) -> None:
    save_model(trained_like(small_network(dtype=policy)), tmp_path / "train.keras")
    status, output, _ = run("convert", tmp_path / "train.keras", tmp_path / "deploy.keras")
    assert status == 0
    assert "agree" in output
    assert {str(weight.dtype) for weight in load_model(tmp_path / "deploy.keras").weights} == {"float32"}
    assert run("verify", tmp_path / "train.keras", tmp_path / "deploy.keras")[0] == 0


def test_a_plain_network_has_nothing_to_convert(run: Run, tmp_path: Path) -> None:
    """It says so, and gives the deploy form; `inspect` tells what multiplied its gradients."""
    model = trained_like(small_network(block="RepOptVGGBlock", input_shape=(32, 32, 3)))
    told = {"name": "RepOptimizer", "update_rule": "sgd", "scales": "a search", "scales_digest": "01234567"}
    set_metadata(model, optimizer=told)
    save_model(model, tmp_path / "plain.keras")
    status, output, _ = run("convert", tmp_path / "plain.keras", tmp_path / "deploy.keras")
    assert status == 0
    assert "There were no branches to convert: the network is plain while it trains" in " ".join(output.split())
    deployed = load_model(tmp_path / "deploy.keras")
    assert get_metadata(deployed).form == "deploy"
    assert get_metadata(deployed).optimizer == told
    images = random_images((2, 32, 32, 3))
    assert relative_error(infer(model, images), infer(deployed, images)) < 1e-5
    assert "RepOptimizer (sgd), scales: a search" in run("inspect", tmp_path / "deploy.keras")[1]
    save_model(trained_like(small_network(input_shape=(32, 32, 3))), tmp_path / "branches.keras")
    assert "no branches" not in run("convert", tmp_path / "branches.keras", tmp_path / "other.keras")[1]
