"""ONNX: written, run by ONNX Runtime, quantized."""
