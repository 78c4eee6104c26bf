"""Scales in a run: those it was given, or those it searches first; and what a search leaves.

Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242, section
3.3, and https://github.com/DingXiaoH/RepOptimizers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.run_folder import OPTIMIZER_SCALES, SEARCH, SETTINGS, RunFolder
from repvgg.base.words import counted
from repvgg.checkpoints.scales import (
    Scales,
    load_scales,
    save_scales,
    scaled_blocks,
    scales_of,
    search_blocks,
)
from repvgg.models.variants import SEARCH as SEARCH_NETWORK
from repvgg.pipeline import DataShard
from repvgg.training.rep_optimizer import is_fresh, reinitialize_kernels
from repvgg.training.request import Request


def given_scales(request: Request) -> Scales | None:
    """What was given; of a run that goes on, what lies in its folder, unless it was given again.

    Raises:
        FileError: if they cannot be read.
    """
    if request.scales is not None:
        return load_scales(request.scales)
    kept = request.folder / OPTIMIZER_SCALES
    if request.begun is not None and "scales" in request.begun["settings"]:
        return load_scales(kept)
    return None


def require_one_process(shard: DataShard) -> None:
    """Makes sure that a search is not asked of several processes, of which one writes.

    Raises:
        InputError: if it is.
    """
    if shard.count > 1:
        raise InputError(
            "Several processes do not search scales before they train. Search first, by training the network whose "
            f"name ends in {SEARCH_NETWORK}, then give --scales."
        )


def find_scales(request: Request, run: Callable[[Request], Any], console: Console) -> Scales:
    """Trains the search network in a folder inside the run's, or goes on with that; once it is done, it is done.

    Args:
        run: trains as it is asked to.
    """
    kept = request.folder / OPTIMIZER_SCALES
    if not kept.exists():
        search = search_request(request)
        console.print(f"Searching scales: {search.label}, {counted(search.recipe.epochs, 'epoch')}.", soft_wrap=True)
        run(search)
        save_scales(load_scales(search.folder / OPTIMIZER_SCALES), kept)
    return load_scales(kept)


def search_request(request: Request) -> Request:
    """The run that searches the scales for another: the same images, recipe and seed."""
    folder = RunFolder(request.folder / SEARCH)
    return replace(
        request,
        model=f"{request.model}{SEARCH_NETWORK}",
        # A teacher's answers are for the network that comes of it.
        recipe=request.recipe.changed(epochs=request.search_epochs, distill=0.0),
        folder=folder,
        weights=None,
        teacher=None,
        scales=None,
        search_epochs=None,
        report=False,
        tensorboard=False,
        begun=folder.read_json(SETTINGS) if request.begun is not None and folder.started else None,
        force=True,
        notes=[],
    )


def prepare_scales(network: Any, request: Request, scales: Scales | None, console: Console) -> dict[str, Any] | None:
    """Gives kernels or factors what training begins with; what goes into the network's metadata.

    Raises:
        InputError: if the scales are another network's.
    """
    if scales is None:
        if isinstance(request.model, str) and request.weights is None:
            set_initial_scales(network)
        return None
    fresh = is_fresh(network)
    if fresh:
        reinitialize_kernels(network, scales, request.seed)
    begins = "begin as sums of branches" if fresh else "stay as they were trained"
    console.print(
        f"RepOptimizer ({request.recipe.optimizer}) for {counted(len(scaled_blocks(network, scales)), 'block')}, "
        f"scales: {scales.source}. The kernels {begins}.",
        soft_wrap=True,
        markup=False,
    )
    return {
        "name": "RepOptimizer",
        "update_rule": request.recipe.optimizer,
        "scales": scales.source,
        "scales_digest": scales.digest(),
    }


def set_initial_scales(network: Any) -> None:
    """Gives the factors of a search network what a search begins with: sqrt(2 / l) in block l of its stage, from 0.

    The first block of a stage, and every factor of the input itself, stay at 1.
    """
    for block in search_blocks(network):
        place = re.fullmatch(r"stage[1-4]_block(\d+)", block.name)
        index = int(place[1]) if place else 0
        if index == 0:
            continue
        for branch in block.kind.branches(block.shape):
            for parameter in branch.parameters(block.shape):
                if parameter.role == "scale" and not parameter.decayed:
                    scale = block.variable(parameter.path)
                    scale.assign(scale * 0 + math.sqrt(2 / index))


def keep_found_scales(network: Any, request: Request, console: Console) -> None:
    """Writes the scales of a search network that was trained to the end."""
    if not search_blocks(network):
        return
    found = scales_of(
        network,
        f"{request.label} trained on {request.data.resolve().name}, {counted(request.recipe.epochs, 'epoch')}, "
        f"seed {request.seed}",
    )
    path = save_scales(found, request.folder / OPTIMIZER_SCALES, force=True)
    console.print(f"The scales it found: {path}", soft_wrap=True, markup=False)
