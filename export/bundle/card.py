"""The model card of a bundle: the run's card, or a generated one for a checkpoint saved by other code."""

from __future__ import annotations

from stageproof.export.reference.model import Reference
from stageproof.runtime.labels import ASSUMED, ORIGINS

CARD = "MODEL_CARD.md"


def model_card(reference: Reference) -> bytes | None:
    """The content of `MODEL_CARD.md`, UTF-8; None for a run without one, since it was never evaluated."""
    if reference.run is not None:
        card = reference.run / CARD
        return card.read_bytes() if card.is_file() else None
    info, spec = reference.info, reference.info.input
    rows = "\n".join(f"| {output} | {label} |" for output, label in enumerate(info.labels))
    classes = info.classes
    warning = (
        f"> **The order of the classes is {ASSUMED}.** Neither the checkpoint nor a file beside it states it. If the "
        "network was trained with another order, the predicted classes are wrong.\n\n"
        if reference.order.origin == ASSUMED
        else ""
    )
    return (
        f"# {reference.provenance['checkpoint']}\n\n"
        "Research use only: not a medical device, not for diagnosis.\n\n"
        f"{warning}"
        f"`{info.architecture}`, {spec.width} × {spec.height} pixels in {spec.channels} "
        f"channel{'s' if spec.channels > 1 else ''}, weights with SHA-256 `{info.digest}`.\n\n"
        f"## Classes\n\nOrder: {ORIGINS[reference.order.origin]}.\n\n| output | class |\n| --- | --- |\n{rows}\n\n"
        f"Clinical order: {', '.join(classes.names)}. Positive in the two-way question ({classes.question}): "
        f"{', '.join(classes.positive)}.\n\n"
        "## Limits\n\nThis checkpoint was trained by other code. Its training data, held-out patients and accuracy on "
        "new patients are not recorded here, and were not measured at export.\n"
    ).encode()
