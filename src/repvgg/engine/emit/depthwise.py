"""A convolution of each channel alone: vectors of channels, all taps in registers."""

from repvgg.engine.emit.module import Module, activate
from repvgg.engine.ir import Function, Index, Value
from repvgg.engine.layout import Images
from repvgg.engine.plan import Convolution
from repvgg.engine.schedule import Depthwise, Step


def emit(module: Module, step: Step, choice: Depthwise, source: Images, target: Images) -> None:
    """Each channel alone; a task is a row of an image."""
    layer = step.layer
    if not isinstance(layer, Convolution):
        raise TypeError(f"'{layer.name}' is not a convolution.")
    high, wide = layer.kernel.shape[:2]
    early = layer.attention is not None and layer.attention.position == "before_activation"
    activation = "linear" if early else layer.activation
    lanes, across = module.isa.lanes, min(choice.pixels, step.result[1])
    blocks = -(-step.result[1] // across)

    def task(f: Function) -> None:
        image, y = f.divide("%task", step.result[0])
        kernels = module.constants[f"{layer.name}/depthwise"].pointer(f)
        biases = module.constants[f"{layer.name}/bias"].pointer(f)
        read = f.at(
            source.place.pointer(f),
            source.offset(f, image, f.add(f.multiply(y, layer.strides[0]), -layer.pads[0]), -layer.pads[1]),
        )
        write = f.at(target.place.pointer(f), target.offset(f, image, y, 0))

        def channels(c: Index, _: list[Value]) -> None:
            weights = f.at(kernels, f.multiply(c, high * wide))
            taps = [f.load(f.at(weights, tap * lanes), 4 * lanes) for tap in range(high * wide)]
            bias = f.load(f.at(biases, c), 4 * lanes)
            from_, into = f.at(read, c), f.at(write, c)

            def pixels(block: Index, _: list[Value]) -> None:
                x = f.least(f.multiply(block, across), step.result[1] - across)
                here = f.at(from_, f.multiply(x, layer.strides[1] * source.channels))
                out = f.at(into, f.multiply(x, target.channels))
                sums = [bias] * across
                for tap, weight in enumerate(taps):
                    ky, kx = divmod(tap, wide)
                    for pixel in range(across):
                        place = ky * layer.dilations[0] * source.row
                        place += (kx * layer.dilations[1] + pixel * layer.strides[1]) * source.channels
                        sums[pixel] = f.fma(f.load(f.at(here, place), 4 * lanes), weight, sums[pixel])
                for pixel, total in enumerate(sums):
                    f.store(activate(f, activation, total), f.at(out, pixel * target.channels), 4 * lanes)

            f.loop(0, blocks, 1, pixels)

        f.loop(0, target.channels, lanes, channels)

    module.phase(layer.name, source.count * step.result[0], task)
