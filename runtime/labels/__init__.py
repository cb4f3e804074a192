"""Label sets: ordered classes with their spellings, and which of them are positive."""

from stageproof.runtime.labels.origins import ASSUMED, LABELS_FROM, ORIGINS, order_line
from stageproof.runtime.labels.scales import ALPHABETICAL, BUILT_IN, CDR, LABELS, canonical_label
from stageproof.runtime.labels.sets import LARGEST, LabelSet, label_set, named_or_listed, recognise

FOUR_STAGES = label_set(LABELS)
"""The four stages of the public datasets drawn from OASIS-1; positive: all but NonDemented."""

__all__ = [
    "ALPHABETICAL",
    "ASSUMED",
    "BUILT_IN",
    "CDR",
    "FOUR_STAGES",
    "LABELS",
    "LABELS_FROM",
    "LARGEST",
    "ORIGINS",
    "LabelSet",
    "canonical_label",
    "label_set",
    "named_or_listed",
    "order_line",
    "recognise",
]
