"""`combine_fragments`: combines fragments into groups such that no patient is in two groups, and bounds the error.

A fragment is a set of slices connected by strong links. Two fragments of one patient are at different heights, with
missing slices between them, otherwise a strong link would join them. Two fragments with dissimilar slices at the same
height therefore belong to two patients. Two fragments at different heights may belong to one patient: if few slices are
missing, their nearest slices decide; otherwise this cannot be decided, and they are joined.

The bound is a sum of three tail probabilities, estimated from the fragments themselves: adjacent slices of one patient
are dissimilar; parts of a split patient seem to be at the same height; slices of two patients at different heights are
as similar as those of one patient.

A small group that may belong to several patients is set aside as undecided: joining it to each would merge all of them.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.heights import gaps, heights, in_order
from stageproof.train.data.patients.peaks_over_threshold import FEWEST, chance_above, exceeded
from stageproof.train.data.patients.rejoining import Score, join_fragments, strong_level
from stageproof.train.data.patients.residual import Residuals

RISK = 0.01
"""Maximum expected number of split patients."""
_NEAR = (1.0, 0.9, 0.8, 0.7)  # distances of adjacent slices, in spacings; the largest at which they are similar is used
_UNLIKE = 4.0  # level, in spreads above the centre, below which two slices are dissimilar
_FEWEST_GROUPS, _LONG = 5, 6  # minimum number of fragments; minimum number of slices of a fragment to cut
_SEVERAL = 5  # dissimilar slices that prove two patients, if the ends alone may be dissimilar for other reasons
_SMALL = 6  # groups with fewer slices may be set aside as undecided
_BLOCK = 512  # slices compared in one block
_BRIDGED = 0.01  # maximum share of fragments that contain two patients connected by one link
_OUTLIER = 0.001  # quantile of the similarity to other patients below which a single slice is an outlier


def combine_fragments(
    slices: Residuals, fragments: np.ndarray, joined: np.ndarray, maybe: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """(N,) int64 groups, such that no patient is in two groups, except for undecided slices; (N,) bool, undecided
    slices; and the expected number of split patients (1: unknown).

    fragments: (N,) int64 from 0, connected components of the strong links. joined: (N,) int64 from 0, unions of
    fragments of one patient (by copies). maybe: (L, 2) slices whose groups may be one patient in two head positions:
    they are joined unless several slices show that they are two patients.
    """
    nothing = np.zeros(len(joined), np.int64), np.zeros(len(joined), bool), 1.0
    size = np.bincount(fragments)
    if not _FEWEST_GROUPS <= len(size) <= len(fragments) / 3 or _has_outlier(slices, fragments):
        return nothing
    line = heights(slices, fragments)
    level = slices.centre + _UNLIKE * slices.spread
    fragments, joined, held = cut_bridges(slices, line, fragments, joined, level)
    size = np.bincount(fragments)
    lines = [group[np.argsort(line[group], kind="stable")] for group in in_order(fragments)]
    long = [group for group in lines if len(group) >= max(_LONG, 0.4 * np.median(size[fragments]))]
    if len(long) < _FEWEST_GROUPS:
        return nothing
    for near in _NEAR:
        unlike = chance_above(-_beside(slices, line, long, near), -level) * len(line)
        if unlike <= RISK / 4:
            break
    else:
        return nothing
    rng = np.random.default_rng(seed)
    score = Score(slices, line, long, near, rng)
    if len(score.different_patients) < FEWEST:
        return nothing
    # A wrong join splits a patient only if the other part of this patient is too far away for a score.
    tested = int((gaps(line, fragments) > near).sum()) + len(size)
    sure = exceeded(score.different_patients, RISK / 2 / tested)
    groups, tears, rivals = join_fragments(score, line, joined, near, sure)
    rooms = score.rooms(long, sure, rng)
    if len(rooms) < FEWEST:
        return nothing
    tears += int((np.bincount(groups) < _SMALL).sum())  # small groups without a join may also be parts of a patient
    least = -exceeded(-rooms, RISK / 4 / (tears + 2 * math.sqrt(tears + 1) + 2))
    nodes, links = _without_small(joined, groups)
    members, apart = in_order(nodes), gaps(line, nodes)
    evidence = _evidence(slices, line, nodes, near, level)
    doubts = np.argwhere((apart <= near) & np.triu(evidence == 0, 1))
    meeting = nodes[maybe]
    meeting = meeting[evidence[tuple(meeting.T)] < _SEVERAL]
    far = np.argwhere(apart > near)
    room = score.room(apart[tuple(far.T)], score.of([(members[g], members[h]) for g, h in far]))
    size = np.bincount(nodes)
    largest = np.array([max(nodes[group].tolist(), key=lambda node: int(size[node])) for group in in_order(groups)])
    doubts = np.concatenate([links, doubts, far[room >= least], largest[rivals], meeting, nodes[held]])
    whole, aside = resolve_doubts(size, doubts)
    return whole[nodes], aside[nodes], float(unlike) + RISK * 3 / 4


def _without_small(joined: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 from 0: `groups`, with small parts that were joined by a score separated again; and (K, 2) int64,
    pairs of these that were in one group.

    A score may be wrong, and the small part then belongs to another group. It must therefore not define the heights of
    its group, and all groups to which it may belong are considered.
    """
    small = np.bincount(joined)[joined] < _SMALL
    nodes = np.where(small, groups.max() + 1 + joined, groups)
    nodes = np.unique(nodes, return_inverse=True)[1]
    together = [pair for group in in_order(groups) for pair in combinations(np.unique(nodes[group]).tolist(), 2)]
    return nodes, np.array(together, np.int64).reshape(-1, 2)


def resolve_doubts(size: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) int64 numbers of the merged groups; and (G,) bool, groups that are set aside as undecided. Of the other
    groups, no two that may belong to one patient remain separate.

    size: (G,) number of slices. doubts: (K, 2) int64, pairs of groups that may belong to one patient. Large groups are
    merged. A small group is merged if all groups to which it may belong are already merged, otherwise it is set aside;
    larger ones first.
    """
    small = size < _SMALL
    number = components(len(size), *doubts[~small[doubts].any(axis=1)].T)
    aside, beside = small.copy(), [set[int]() for _ in size]
    for one, other in doubts.tolist():
        beside[one].add(other)
        beside[other].add(one)
    for group in sorted(np.flatnonzero(small).tolist(), key=lambda group: -int(size[group])):
        whole = {int(number[other]) for other in beside[group] if not aside[other]}
        if len(whole) <= 1:
            number[group], aside[group] = whole.pop() if whole else number.max() + 1, False
    return number, aside


def cut_bridges(
    slices: Residuals, line: np.ndarray, fragments: np.ndarray, joined: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) int64 fragments and joined fragments, after cutting fragments of two patients connected by one strong link;
    and (K, 2) slices, one of each part: they remain in one group, but are not used as examples of one patient.

    If there are many such fragments, none is cut: they may be patients scanned twice.
    """
    found = []
    for group in in_order(fragments):
        if len(group) < 2 * _LONG or len(group) < (joined == joined[group[0]]).sum():
            continue
        alike = slices.left[group] @ slices.left[group].T
        linked = alike > strong_level(slices)
        np.fill_diagonal(linked, False)
        upper = np.linalg.eigh(np.diag(linked.sum(axis=1)) - linked.astype(float))[1][:, 1] > 0
        if min(upper.sum(), (~upper).sum()) < _LONG or linked[upper][:, ~upper].sum() != 1:
            continue
        beside = np.abs(line[group[upper]][:, None] - line[group[~upper]]) < 1
        best = np.where(beside, alike[upper][:, ~upper], -1).max(axis=1)
        if (beside.any(axis=1) & (best < level)).sum() >= _SEVERAL:
            found.append((group[upper], group[~upper]))
    if len(found) > max(_BRIDGED * (int(fragments.max()) + 1), 1):
        found = []
    fragments, joined = fragments.copy(), joined.copy()
    for own, _ in found:
        fragments[own], joined[own] = fragments.max() + 1, joined.max() + 1
    held = np.array([(own[0], other[0]) for own, other in found], np.int64).reshape(-1, 2)
    return fragments, joined, held


def _has_outlier(slices: Residuals, fragments: np.ndarray) -> bool:
    """Whether a slice without strong links is an outlier: noise may then hide which patient it shows."""
    size = np.bincount(fragments)[fragments]
    alone, held = slices.typical[size < 3], slices.typical[size >= 6]
    return bool(len(alone) and len(held) and alone.min() < np.quantile(held, _OUTLIER))


def _beside(slices: Residuals, line: np.ndarray, long: list[np.ndarray], within: float) -> np.ndarray:
    """(K,) largest residual correlation of each slice with a slice of its fragment at most `within` away in height."""
    found = []
    for group in long:
        alike = slices.left[group] @ slices.left[group].T
        near = np.abs(line[group][:, None] - line[group]) < within
        np.fill_diagonal(near, False)
        found.append(np.where(near, alike, -1).max(axis=1)[near.any(axis=1)])
    return np.concatenate(found)


def _evidence(slices: Residuals, line: np.ndarray, groups: np.ndarray, beside: float, level: float) -> np.ndarray:
    """(G, G) int64, symmetric: number of slices of two groups that are dissimilar to adjacent slices of the other."""
    order = np.argsort(line, kind="stable")
    found = np.zeros((int(groups.max()) + 1,) * 2, np.int64)
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        band = line[rows[[0, -1]]] + (-beside, beside)
        columns = order[slice(*np.searchsorted(line[order], band, side="right"))]
        columns = columns[np.argsort(groups[columns], kind="stable")]
        held, starts = np.unique(groups[columns], return_index=True)
        alike = slices.left[rows] @ slices.left[columns].T
        alike[np.abs(line[rows, None] - line[columns]) >= beside] = -2
        best = np.maximum.reduceat(alike, starts, axis=1)
        row, column = np.nonzero((best > -2) & (best < level))
        np.add.at(found, (groups[rows][row], held[column]), 1)
    return found + found.T
