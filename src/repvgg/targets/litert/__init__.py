"""LiteRT, formerly TensorFlow Lite: written, run, quantized."""
