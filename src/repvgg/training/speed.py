"""What training asks of the machine before it begins."""

import keras

from repvgg.base.startup import keep_memory, warn_without_onednn


def prepare_machine() -> None:
    """Memory that stays, and a word where TensorFlow came up slower than it had to."""
    keep_memory()
    if keras.backend.backend() == "tensorflow":
        from repvgg.blocks.ops.tensorflow import has_onednn

        warn_without_onednn(has_onednn)
