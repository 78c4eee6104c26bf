"""Batches for training and evaluation, by tf.data; they feed a model on any of Keras's backends.

Training data are a pure function of the seed and the step: `batches.py` says how.
"""

from repvgg.pipeline.batches import evaluation_batches, steps_per_epoch, training_batches
from repvgg.pipeline.folder_source import FolderSource
from repvgg.pipeline.record_source import RecordSource
from repvgg.pipeline.records import write_records
from repvgg.pipeline.sampling_order import DataShard

__all__ = [
    "DataShard",
    "FolderSource",
    "RecordSource",
    "evaluation_batches",
    "steps_per_epoch",
    "training_batches",
    "write_records",
]
