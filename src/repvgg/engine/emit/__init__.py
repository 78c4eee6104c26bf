"""From a schedule to LLVM's intermediate language: one file a kind of layer."""
