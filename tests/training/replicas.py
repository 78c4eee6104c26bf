"""Two replicas in TensorFlow, on two logical CPUs: python replicas.py DATA OUTPUT. Prints what came of it as JSON."""

import json
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
from small_run import BATCH, small_model, small_settings

DEVICES = ["CPU:0", "CPU:1"]
WEIGHT_DECAY = 0.05
"""So strong that one decay too many shows."""


def steps(*, replicas: bool) -> tuple[dict[str, np.ndarray], float]:
    """Variables and loss after four steps on a batch whose halves are the same."""
    import keras

    from repvgg.training.compiled import compile_for
    from repvgg.training.distribution import all_devices, placed

    generator = np.random.default_rng(0)
    images = np.tile(generator.standard_normal((BATCH // 2, 32, 32, 3)).astype("float32"), (2, 1, 1, 1))
    targets = np.tile(np.eye(3, dtype="float32")[generator.integers(0, 3, BATCH // 2)], (2, 1))
    batches = tf.data.Dataset.from_tensors((images, targets)).repeat(4)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    model = small_model()
    with all_devices(DEVICES) if replicas else nullcontext():
        recipe = small_settings()["recipe"].changed(weight_decay=WEIGHT_DECAY)
        trainer = compile_for(placed(model), recipe, 4)
        history = trainer.fit(batches.with_options(options), verbose=0, shuffle=False).history
        values = {variable.path: np.array(keras.ops.convert_to_numpy(variable.value)) for variable in trainer.variables}
    return values, history["loss"][0]


def differences() -> dict[str, Any]:
    one, loss = steps(replicas=False)
    two, loss_of_two = steps(replicas=True)
    errors = {name: float(np.abs(one[name] - two[name]).max() / np.abs(one[name]).max()) for name in one}
    return {"loss": [loss, loss_of_two], "errors": errors}


def scaled() -> float:
    """The largest difference of weights after two steps of RepOptimizer, which finds its kernels among replicas."""
    import keras

    import repvgg
    from repvgg.checkpoints.scales import scales_of
    from repvgg.training.compiled import compile_for
    from repvgg.training.distribution import all_devices, placed

    def network(block: str) -> Any:
        keras.utils.set_random_seed(3)
        return repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=3, input_shape=(32, 32, 3), block=block)

    images = np.tile(np.random.default_rng(0).standard_normal((BATCH // 2, 32, 32, 3)).astype("float32"), (2, 1, 1, 1))
    targets = np.eye(3, dtype="float32")[np.tile(np.arange(BATCH // 2) % 3, 2)]
    found = []
    for replicas in (False, True):
        with all_devices(DEVICES) if replicas else nullcontext():
            recipe = small_settings()["recipe"].changed(weight_decay=WEIGHT_DECAY)
            trainer = compile_for(
                placed(network("RepOptVGGBlock")), recipe, 4, scales_of(network("LinearAdditionBlock"))
            )
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            batches = tf.data.Dataset.from_tensors((images, targets)).repeat(2).with_options(options)
            trainer.fit(batches, verbose=0, shuffle=False)
            found.append([np.array(keras.ops.convert_to_numpy(one.value)) for one in trainer.trainable_variables])
    return float(max(np.abs(one - two).max() / np.abs(one).max() for one, two in zip(*found, strict=True)))


def refusals() -> list[str]:
    from repvgg.base.errors import InputError
    from repvgg.training.distribution import all_devices
    from repvgg.training.optimizers import make_optimizer

    told = []
    with all_devices(DEVICES):
        for changes in ({"accumulate": 2}, {"clip_norm": 1.0}):
            try:
                make_optimizer(small_settings()["recipe"].changed(**changes), 4)
            except InputError as error:
                told.append(str(error))
    return told


def whole_run(data: str, output: str) -> dict[str, Any]:
    """A run of one epoch, and one that goes on with it."""
    import repvgg
    import repvgg.training.run as room
    from repvgg.training.distribution import all_devices

    room.all_devices = lambda: all_devices(DEVICES)  # type: ignore[assignment]
    settings = small_settings()
    settings["recipe"] = settings["recipe"].changed(epochs=1)
    repvgg.train(data, small_model(), output=output, **settings)
    result = repvgg.train(data, small_model(), output=output, resume=True, **settings)
    return {"same_class": result.outcome.same_class, "epochs": len(result.history)}


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # TensorFlow numbers exchanges from the same start in every strategy: another network needs another process.
    if sys.argv[1:] == ["scaled"]:
        print(json.dumps({"scaled": scaled()}))
        return
    data, output = sys.argv[1:]
    print(json.dumps({**differences(), "refusals": refusals(), "run": whole_run(data, output)}))


if __name__ == "__main__":
    main()
