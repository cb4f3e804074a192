"""Sections of the model card about the network and its training run."""

from __future__ import annotations

from typing import Any

from stageproof.train.cards.markdown import table
from stageproof.train.cards.text import NOT_MEASURED
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.formatting import joined


def what_it_is(run: Facts) -> str:
    """What goes in and what comes out."""
    width, height, channels = run("input.width"), run("input.height"), run("input.channels")
    return (
        f"`{run('architecture')}` assigns axial brain-MRI slices to {joined(list(run('labels')))}, in "
        f"the order of its outputs as the training run recorded it. It takes {width} × "
        f"{height} pixels in {channels} channel{'s' if channels > 1 else ''} and started from {run('start')}."
    )


def hyperparameters(run: Facts) -> str:
    """Every setting of the recipe."""
    rows: list[list[str]] = []
    for name, value in run("recipe").items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name} {key}".strip().replace("_", " "), _plain(entry)] for key, entry in nested]
    rows += [[name, _plain(run(path))] for name, path in (("arithmetic", "arithmetic"), ("device", "device"))]
    rows += [[f"split {name}", _plain(run(f"split.{name}"))] for name in ("by", "fold", "seed")]
    return f"## Training\n\n{table(['setting', 'value'], rows)}"


def _plain(value: Any) -> str:
    return "no" if value is None or value is False else "yes" if value is True else str(value)


def environment(run: Facts) -> str:
    """Energy, where it was measured."""
    if not run.known("energy", optional=True):
        return f"## Environmental impact\n\n{NOT_MEASURED}"
    return (
        f"## Environmental impact\n\n{run('energy.energy_kwh'):.4f} kWh and {run('energy.co2_kg'):.4f} kg of carbon "
        f"dioxide equivalents in {run('energy.seconds'):.0f} seconds, estimated by {run('energy.estimated_by')} for "
        f"the electricity of {run('energy.country')}."
    )
