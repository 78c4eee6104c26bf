"""What is asked of a run: complete, and checked as far as that can be before a framework is started.

What somebody gave counts first, then what the run to go on with was begun with, then defaults. Nothing is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, InputError
from repvgg.base.files import require_file
from repvgg.base.run_folder import SETTINGS, RunFolder
from repvgg.blocks import KINDS
from repvgg.checkpoints.hub import fetch
from repvgg.checkpoints.scales import load_scales, require_fitting
from repvgg.data.folder import LabelledImages, find_splits, holds_shards
from repvgg.models.variants import SEARCH, get_variant, known_variant
from repvgg.training.recipe import BASE_BATCH, Recipe, get_recipe

SAVE_STEPS = 200
"""Steps between checkpoints within an epoch."""

NO_SIZE = "This recipe has no image size of its own, and the network carries none. Give `size`."

_DEFAULTS: Mapping[str, Any] = {
    "model": "RepVGG-A0",
    "weights": None,
    "seed": 0,
    "holdout": 0.2,
    "dtype": None,
    "teacher": None,
    "qat": None,
    "scales": None,
    "search_epochs": None,
    "per_channel": False,
    "processor": None,
    "save_steps": SAVE_STEPS,
    "tensorboard": True,
    "report": True,
    "strict": False,
    "workers": None,
    "deterministic": False,
}
_FILES = ("teacher", "qat")
_OPTIONS = (
    *_FILES,
    "per_channel",
    "processor",
    "save_steps",
    "tensorboard",
    "report",
    "strict",
    "workers",
    "deterministic",
)
"""What decides no numbers, or is told in other words where it does."""

_FIT = ("warmup_epochs", "batch_size")
"""Values of a recipe that shrink to fit the rest where nobody gave them."""


@dataclass(frozen=True)
class Request:
    """A run that can begin, or go on.

    Attributes:
        data, seed, holdout, strict: which images, and what becomes of broken ones.
        workers: threads that read images.
        splits: the images to train on and to measure with; None where `data` are shards.
        model: a variant's name, or a network.
        recipe: how it is trained.
        given: names of the recipe's values that somebody gave.
        folder: where everything goes; not made yet.
        weights, teacher, qat, per_channel, processor, dtype, deterministic: as `repvgg train` has them.
        scales, search_epochs: of RepOptimizer: a file, or how long to search.
        save_steps, tensorboard, report: what is written, and how often.
        begun: what the run to go on with was begun with; None for a new one.
        force: what a folder holds of another run may go.
        notes: what a person should know before it begins.
    """

    data: Path
    splits: tuple[LabelledImages, LabelledImages] | None
    model: Any
    recipe: Recipe
    given: frozenset[str]
    folder: RunFolder
    weights: str | Path | None
    teacher: Any
    qat: str | Path | None
    scales: str | Path | None
    search_epochs: int | None
    per_channel: bool
    processor: str | None
    seed: int
    holdout: float
    dtype: Any
    save_steps: int
    tensorboard: bool
    report: bool
    strict: bool
    workers: int | None
    deterministic: bool
    begun: Mapping[str, Any] | None = None
    force: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The network's name, as the run calls it."""
        return _label(self.model, self.qat)

    def options(self) -> dict[str, Any]:
        """What goes into `run.json` beside the settings, so that the run can go on by its folder alone."""
        values = {name: getattr(self, name) for name in _OPTIONS}
        # Networks in memory cannot be written down.
        files = {name: str(Path(values[name]).resolve()) for name in _FILES if isinstance(values[name], str | Path)}
        return {**values, **dict.fromkeys(_FILES), **files}

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as far as it is known without a framework."""
        named = {"model": self.model} if isinstance(self.model, str) and self.qat is None else {}
        dtype = {"dtype": self.dtype} if isinstance(self.dtype, str) else {}
        search = {"search_epochs": self.search_epochs} if self.search_epochs is not None else {}
        return {
            "data": str(self.data.resolve()),
            "weights": str(self.weights) if self.weights is not None else None,
            "seed": self.seed,
            "holdout": self.holdout,
            "recipe": self.recipe.to_dict(),
            **named,
            **dtype,
            **search,
        }

    def fitted_to(self, images: int) -> "Request":
        """The same with a batch that nobody gave cut down to the images there are."""
        size = self.recipe.batch_size
        if self.begun is not None or "batch_size" in self.given or 0 < size <= images or images < 1:
            return self
        self.notes.append(f"batch: {size} -> {images}, as many images as there are to train on.")
        return replace(self, recipe=replace(self.recipe, batch_size=images))

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Makes sure that a run goes on as what it is; longer is allowed.

        Raises:
            InputError: with everything that differs.
        """
        if self.begun is None:
            return
        # Values that recipes did not have yet are what they were without a name.
        begun = {**self.begun["settings"], "recipe": Recipe.from_dict(self.begun["settings"]["recipe"]).to_dict()}
        different = differences(begun, settings)
        # The images themselves are compared, wherever they lie by now.
        told = [f"{name}: {old} -> {new}" for name, (old, new) in different.items() if name not in ("epochs", "data")]
        if told:
            raise InputError(
                f"The run in '{self.folder.path}' was begun with other settings: {'; '.join(told)}. Leave them out to "
                "go on with it, or choose another --output. (Other --epochs are allowed.)"
            )


def checked_request(
    given: Mapping[str, Any], *, resume: bool = False, force: bool = False, quantizing: bool = False
) -> Request:
    """Completes and checks what was given, by the names of `repvgg.train`'s arguments.

    Args:
        given: only what somebody gave. `qat`, `per_channel`, `processor` and `deterministic` are the command's.
        resume: go on with the run in `output`, or in `data` if that is a run's folder and not images.
        force: replace a run.
        quantizing: the model is one to be trained on in 8-bit numbers.

    Raises:
        InputError: for what does not fit together, does not exist, or is taken.
    """
    typed = {name: value for name, value in given.items() if value is not None}
    folder = _folder_to_go_on_with(typed) if resume else None
    begun = folder.read_json(SETTINGS) if folder is not None and folder.started else None
    told = {**_DEFAULTS, **_of_run(begun), **typed}
    if "data" not in told:
        raise InputError(
            "There is nothing to train on. Give a folder of images, as in `repvgg train flowers`, or a run to go on "
            "with: `repvgg train --resume runs/RepVGG-A0-flowers`."
        )
    data = Path(told["data"])
    quantizing = quantizing or told["qat"] is not None
    recipe, own, notes = _recipe(typed, begun, "qat" if quantizing else "quick")
    model = get_variant(told["model"]).name if isinstance(told["model"], str) else told["model"]
    if folder is None:
        output = told.get("output") or Path("runs") / f"{_label(model, told['qat'])}-{data.resolve().name}"
        folder = RunFolder(Path(output))
        if resume and folder.started:
            return checked_request({**given, "output": folder.path}, resume=True, force=force, quantizing=quantizing)
    if resume and begun is None:
        notes.append(f"Nothing to go on with in '{folder.path}'; a new run begins.")
    if told["save_steps"] < 1:
        raise InputError(f"`save_steps` must be at least 1. Received: {told['save_steps']}.")
    _check_network(model, told, recipe, quantizing=quantizing)
    _check_scales(model, told, new=begun is None, quantizing=quantizing)
    splits = None if holds_shards(data) else find_splits(data, told["holdout"], told["seed"])
    request = Request(
        data=data,
        splits=splits,
        model=model,
        recipe=recipe,
        given=own,
        folder=folder,
        begun=begun,
        force=force,
        notes=notes,
        **{name: told[name] for name in ("weights", "seed", "holdout", "dtype", "scales", "search_epochs", *_OPTIONS)},
    )
    request.require_same(request.settings())
    if begun is None:
        folder.require_free(resume=resume, force=force)
    return request


def _folder_to_go_on_with(typed: dict[str, Any]) -> RunFolder | None:
    """The run's folder where it was named; takes it out of `typed` if it stands where images would."""
    if "output" in typed:
        return RunFolder(Path(typed["output"]))
    if "data" in typed and RunFolder(Path(typed["data"])).started:
        return RunFolder(Path(typed.pop("data")))
    return None


def _of_run(begun: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run was begun with, by the names of what is given."""
    if begun is None:
        return {}
    settings = begun["settings"]
    # Its scales lie in its folder, whatever has become of the file they came from.
    names = ["data", "weights", "seed", "holdout", *(["search_epochs"] if "search_epochs" in settings else [])]
    if known_variant(settings["model"]) is not None:
        # A network of one's own has its own precision.
        names += ["model", "dtype"]
    return {**{name: settings[name] for name in names}, **begun.get("options", {})}


def _recipe(
    typed: Mapping[str, Any], begun: Mapping[str, Any] | None, default: str
) -> tuple[Recipe, frozenset[str], list[str]]:
    """The recipe, the names of its values that were given, and what was done to others to fit."""
    known = {*_DEFAULTS, "data", "output", "recipe"}
    changes = {name: value for name, value in typed.items() if name not in known}
    base = typed.get("recipe", default)
    before = Recipe.from_dict(begun["settings"]["recipe"]) if begun is not None else None
    if before is not None and "recipe" not in typed:
        base = before
    elif isinstance(base, str):
        base = get_recipe(base)
        if before is not None:
            base = base.changed(epochs=before.epochs, **{name: getattr(before, name) for name in _FIT})
    chosen = base.changed(**changes)
    if chosen.optimizer != base.optimizer and "learning_rate" not in changes:
        raise InputError(
            f"The recipe's learning rate, {base.learning_rate:g}, is for {base.optimizer}. Give one for "
            f"{chosen.optimizer}, at batch {BASE_BATCH}: --learning-rate 0.004, or another."
        )
    notes = []
    if "warmup_epochs" not in changes and chosen.warmup_epochs != base.warmup_epochs:
        notes.append(
            f"warmup-epochs: {base.warmup_epochs:g} -> {chosen.warmup_epochs:g}, to fit {chosen.epochs} "
            f"{'epoch' if chosen.epochs == 1 else 'epochs'}."
        )
    return chosen, frozenset(changes if isinstance(typed.get("recipe", default), str) else chosen.to_dict()), notes


def _check_network(model: Any, told: Mapping[str, Any], recipe: Recipe, *, quantizing: bool) -> None:
    teaches = told["teacher"] is not None or (quantizing and recipe.distill > 0)
    if teaches != (recipe.distill > 0):
        raise InputError(
            "There is a teacher, and no share of the targets is to come from it. Say how much: --distill 1 (distill=1) "
            "for all."
            if teaches
            else f"A share of {recipe.distill:g} of the targets is to come from a teacher, and there is none. Name one "
            "(--teacher), or learn from labels alone (--distill 0)."
        )
    weights, named = told["weights"], isinstance(model, str) and not quantizing
    if not named:
        if told["qat"] is not None and not Path(told["qat"]).exists():
            raise InputError(f"There is no network '{told['qat']}' to train on in 8-bit numbers (--qat).")
        for name in ("weights", "dtype"):
            if told[name] is not None and not isinstance(model, str):
                raise InputError(f"`{name}` is for a network that is made by its name; '{model.name}' has its own.")
        return
    if recipe.size is None:
        raise InputError(NO_SIZE)
    if weights == "imagenet":
        fetch(model)
    elif weights is not None:
        require_file(Path(weights), what="weights file")


def _check_scales(model: Any, told: Mapping[str, Any], *, new: bool, quantizing: bool) -> None:
    scales, epochs = told["scales"], told["search_epochs"]
    if scales is not None and epochs is not None:
        raise InputError("--scales and --search-epochs both say what the gradients are multiplied with. Give one.")
    wanted = scales is not None or epochs is not None
    if epochs is not None and epochs < 1:
        raise InputError(f"`search_epochs` must be at least 1. Received: {epochs}.")
    if quantizing:
        if wanted:
            raise InputError(
                "A network that is trained on in 8-bit numbers takes neither scales nor a search for them."
            )
        return
    if isinstance(model, str):
        architecture = get_variant(model).architecture
        if KINDS[architecture.block].trained_as is None and wanted:
            raise InputError(
                f"{model} is trained by an ordinary optimizer. Leave --scales and --search-epochs out, or train a "
                "RepOpt-VGG."
            )
        if KINDS[architecture.block].trained_as is not None and not wanted and told["weights"] is None and new:
            raise InputError(
                f"{model} is plain from the beginning: it is trained by an optimizer that multiplies gradients, and "
                "that needs scales. Search them first with --search-epochs 20, say, or give a file of them "
                f"(--scales FILE): what a run of {model}{SEARCH} leaves, or the authors' RepOpt-VGG-*-scales.pth."
            )
    elif epochs is not None:
        raise InputError("`search_epochs` is for a network that is made by its name. Give scales.")
    # What only a framework could read is read when there is one.
    if scales is not None and Path(scales).suffix != ".keras" and not Path(scales).is_dir():
        loaded = load_scales(scales)
        if isinstance(model, str):
            require_fitting(loaded, architecture, model)
    elif scales is not None and not Path(scales).exists():
        raise FileError(f"There is no file of scales '{scales}'.")


def _label(model: Any, qat: str | Path | None) -> str:
    if qat is not None:
        return f"{Path(qat).stem}-qat"
    return model if isinstance(model, str) else str(model.name)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values of `now` that were others before, by the names one types; what `now` leaves out is not compared."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return {name: (old.get(name), value) for name, value in new.items() if old.get(name) != value}


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in ("recipe", "augmentation"):
            yield from _flat(value)
        elif name == "rand_augment":
            yield name, " ".join(f"{one:g}" for one in value.values()) if value else "none"
        elif name != "about":
            yield name, " ".join(f"{one:g}" for one in value) if isinstance(value, list | tuple) else value
