"""What the server answers, as `/openapi.json` describes it."""

from typing import Literal

from pydantic import BaseModel, Field


class Guess(BaseModel):
    """A class, and how likely it is."""

    name: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class ModelAnswer(BaseModel):
    """What one network says."""

    model: str
    classes: list[Guess] = Field(description="Most likely first.")
    milliseconds: float = Field(description="That the network took, for all pictures of the batch.")
    batch: int = Field(description="Pictures of concurrent requests that went through it together.")


class Answer(BaseModel):
    """What the networks say about a picture."""

    image: str = Field(description="The name of the file, as it was sent.")
    width: int = Field(description="Pixels, the way up the picture was taken.")
    height: int
    models: list[ModelAnswer]
    milliseconds: float = Field(
        description="From the whole request's arrival to this answer: reading, waiting, networks."
    )


class ModelFacts(BaseModel):
    """A network that is served."""

    name: str
    classes: list[str]
    image_size: int = Field(description="Pixels a side of what the network is given.")
    precision: str
    batch: int = Field(description="Pictures that go through it together, at most.")


class Health(BaseModel):
    """That the server is there."""

    status: Literal["ok"] = "ok"
    version: str
    models: list[str]


class Problem(BaseModel):
    """Why there is no answer: what happened, what was expected, how to go on."""

    error: str
