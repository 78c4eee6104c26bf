"""Exporting: written, loaded by the target's own runtime, compared with the network, and only then handed over."""

from repvgg.exporting.run import Export, export

__all__ = ["Export", "export"]
