"""Tensors of a checkpoint that are not weights of its network, recognised by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KINDS = (
    ("counters of a profiler (thop)", re.compile(r"(^|\.)total_(ops|params)$")),
    ("counter of averaged weights", re.compile(r"(^|\.)(n_averaged|num_updates|decay)$")),
    ("counters of BatchNorm", re.compile(r"(^|\.)num_batches_tracked$")),
    (
        "loss function",
        re.compile(r"(^|\.)(\w*criterion\w*|\w*loss(es)?|loss_\w+|\w+_loss_\w+)\.", re.IGNORECASE),
    ),
    ("loss function", re.compile(r"(^|\.)((class|loss|ce)_?weights?|pos_weight)$", re.IGNORECASE)),
    (
        "metrics",
        re.compile(
            r"(^|\.)(\w*metrics?\w*|(\w+_)?(acc|accuracy|auroc|auc|f1|f1_?score|precision|recall|specificity|kappa|"
            r"confmat|conf_?matrix|confusion_?matrix|cm|mcc)(_\w+)?)\.",
            re.IGNORECASE,
        ),
    ),
    ("metrics", re.compile(r"(^|\.)(confmat|tp|fp|tn|fn|sum_value)$")),
)


def bookkeeping(names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(what → names of tensors that belong to the training and not to the network; the names of all other tensors)."""
    found: dict[str, list[str]] = {}
    rest = []
    for name in names:
        what = next((kind for kind, pattern in _KINDS if pattern.search(name)), None)
        if what is None:
            rest.append(name)
        else:
            found.setdefault(what, []).append(name)
    return found, rest
