"""What an object file says of itself."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Description:
    """What an object file says of itself, in its symbol `repvgg_description`.

    Attributes:
        input_shape: (batch, height, width, channels).
        outputs: by name, shapes with the batch.
        workspace: bytes.
        threads: at most.
        processor: the kind of processor it is for.
        metadata: as JSON.
    """

    input_shape: tuple[int, int, int, int]
    outputs: dict[str, tuple[int, ...]]
    workspace: int
    threads: int
    processor: str
    metadata: str

    def to_json(self) -> str:
        """A JSON object; `from_json` reads it back."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """Reads what `to_json` wrote."""
        fields = json.loads(text)
        fields["input_shape"] = tuple(fields["input_shape"])
        fields["outputs"] = {name: tuple(shape) for name, shape in fields["outputs"].items()}
        return cls(**fields)
