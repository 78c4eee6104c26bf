"""OpenVINO: written, run, quantized by NNCF."""
