"""Puts a network beside the page: model.onnx, and model.json with what ONNX Runtime Web cannot read from the file.

repvgg export model.keras model.onnx --with-preprocessing --softmax
python prepare.py model.onnx
"""

import json
import shutil
import sys
from pathlib import Path

import onnxruntime

PAGE = Path(__file__).parent


def main(artifact: str, folder: str | Path = PAGE) -> None:
    """Writes both files into `folder`, the page's own unless another one is named."""
    session = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["repvgg"])
    wanted = {name: metadata[name] for name in ("class_names", "preprocessing", "input", "output")}
    Path(folder, "model.json").write_text(json.dumps(wanted, ensure_ascii=False), encoding="utf-8")
    shutil.copyfile(artifact, Path(folder, "model.onnx"))


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
