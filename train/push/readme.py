"""README.md of a repository: the model card with the metadata that the Hub reads from its header.

The figures in the header are those that the card of the run states, and no others.
"""

from __future__ import annotations

import re

from huggingface_hub import ModelCard, ModelCardData

from stageproof.runtime.errors import InputError
from stageproof.train.push.plan import Plan

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TAGS = ("medical", "mri", "alzheimer", "research-only", "stageproof")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|]")


def check_license(name: str | None) -> None:
    """Raise InputError unless `name` could be an identifier of a licence."""
    if name is not None and not _LICENSE.fullmatch(name):
        raise InputError(f"--license is {name!r}, expected an identifier of the Hub, such as apache-2.0 or other.")


def readme(plan: Plan, repository: str, license_name: str | None) -> bytes:
    """The content of README.md, UTF-8.

    repository: OWNER/NAME. license_name: identifier of the licence; None: no licence is stated.

    Raises InputError if the header of the model card is damaged.
    """
    try:
        text = plan.card if plan.card is not None else _plain(plan)
        card = ModelCard(text if text.lstrip().startswith("---") else f"---\n{{}}\n---\n{text}")
    except Exception as error:  # ValueError, KeyError, errors of yaml
        raise InputError(
            f"MODEL_CARD.md has no valid header: {' '.join(str(error).split())}. Evaluate again."
        ) from error
    data = card.data
    assert isinstance(data, ModelCardData)
    data.library_name = "stageproof"
    data.pipeline_tag = "image-classification"
    data.tags = list(dict.fromkeys([*(data.tags or ()), *_TAGS, f"stageproof-{plan.kind}"]))
    data.license = license_name
    return f"---\n{data.to_yaml()}\n---\n\n{card.text.strip()}\n\n{_use(plan, repository)}".encode()


def license_of(text: str) -> str | None:
    """The licence that the header of a README.md states; None if it states none."""
    try:
        found = ModelCard(text, ignore_metadata_errors=True).data.get("license")
    except Exception:  # noqa: BLE001  a header that is no metadata states no licence
        return None
    return found if isinstance(found, str) else None


def _plain(plan: Plan) -> str:
    """The card of a run that was never evaluated, or of its bundle."""
    model = plan.facts if plan.kind == "run" else plan.facts["model"]
    size = model["input"]
    labels = ", ".join(map(_escaped, model["labels"]))
    return (
        f"# {_escaped(str(model['architecture']))}\n\n"
        "For research. Not a medical device and not for diagnosis.\n\n"
        f"{_escaped(str(model['architecture']))} classifies axial brain-MRI slices as {labels}, in the order of its "
        f"outputs. Input: {int(size['width'])} × {int(size['height'])} pixels, channels: {int(size['channels'])}.\n\n"
        "This model was not evaluated on held-out patients with Stageproof, so no figure is stated.\n"
    )


def _use(plan: Plan, repository: str) -> str:
    if plan.kind == "bundle":
        lines = f"pip install 'stageproof[hub,onnx]'\nstageproof predict --from hf:{repository} scan.jpg"
        what = "A bundle of Stageproof: every file is listed in `manifest.json` with its SHA-256."
    else:
        lines = f"stageproof evaluate --from hf:{repository} --data SLICES\nstageproof export --from hf:{repository}"
        what = "A training run of Stageproof: `run.json` records how it was made."
    return f"## Use\n\n{what}\n\n```console\n{lines}\n```\n"


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
