"""Which fragments may be parts of one person, and which cannot be.

A fragment is a set of slices that strong links hold. Two fragments of one person lie at different heights: between them
slices are missing, or a strong link would join them. So two fragments that have slices side by side at one height, and
are not alike there, are of two people. A fragment that another one leaves room for may be the rest of it: their nearest
slices show it when few slices are missing, and otherwise nothing does, so that they are joined.

Three probabilities bound the error, each a tail of what the fragments show of themselves: that slices side by side in
one person are not alike; that a torn person's parts seem to lie at one height; and that two people's slices, some
spacings apart, are as alike as one person's.

A small group that may be part of several people is set aside: joined to each of them, it would make one group of all.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.heights import gaps, heights, in_order
from stageproof.train.data.patients.peaks_over_threshold import FEWEST, chance_above, exceeded
from stageproof.train.data.patients.rejoining import Score, rejoined, strong_level
from stageproof.train.data.patients.residual import Residuals

RISK = 0.01
"""Expected number of people torn by an answer, at most."""
_NEAR = (1.0, 0.9, 0.8, 0.7)  # spacings within which slices lie side by side: the widest at which they are surely alike
_UNLIKE = 4.0  # spreads above the centre below which two slices are not alike
_FEWEST_GROUPS, _LONG = 5, 6  # fragments; slices of those that are torn
_SEVERAL = 5  # slices that show two people where their ends alone may be unlike for another reason
_SMALL = 6  # slices, of fewer of which a group is set aside that may be part of several others
_BLOCK = 512  # slices of neighbouring heights that are compared at once
_BRIDGED = 0.01  # share of the fragments that one link may hold together of two heads
_ODD = 0.001  # quantile of the likeness of slices to other heads below which a slice alone is spoilt


def part(
    slices: Residuals, fragments: np.ndarray, joined: np.ndarray, maybe: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """(N,) int64 groups, of whole people but for what is set aside; (N,) bool, slices of small groups that may be part
    of several of the others; and the expected number of people torn (1: nothing can be said).

    fragments: (N,) int64 from 0, slices that strong links hold together. joined: (N,) int64 from 0, unions of
    fragments that are one person for another reason (copies). maybe: (L, 2) slices, whose groups may be one head in two
    positions: they are joined unless several slices show two people.
    """
    nothing = np.zeros(len(joined), np.int64), np.zeros(len(joined), bool), 1.0
    size = np.bincount(fragments)
    if not _FEWEST_GROUPS <= len(size) <= len(fragments) / 3 or _spoilt(slices, fragments):
        return nothing
    line = heights(slices, fragments)
    level = slices.centre + _UNLIKE * slices.spread
    fragments, joined, held = cut(slices, line, fragments, joined, level)
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
    if len(score.strangers) < FEWEST:
        return nothing
    # A wrong link tears only a person whose other part is too far away for a score.
    tested = int((gaps(line, fragments) > near).sum()) + len(size)
    sure = exceeded(score.strangers, RISK / 2 / tested)
    groups, tears, rivals = rejoined(score, line, joined, near, sure)
    rooms = score.rooms(long, sure, rng)
    if len(rooms) < FEWEST:
        return nothing
    tears += int((np.bincount(groups) < _SMALL).sum())  # small groups that nothing was joined to may be parts, too
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
    whole, aside = placed(size, doubts)
    return whole[nodes], aside[nodes], float(unlike) + RISK * 3 / 4


def _without_small(joined: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 from 0: `groups` without the small parts that a score has joined to them, which stand alone; and
    (K, 2) int64, those that are of one group.

    A score may be wrong. A small part is then of another group: it must not say where its group has slices, and all
    that has room for it counts.
    """
    small = np.bincount(joined)[joined] < _SMALL
    nodes = np.where(small, groups.max() + 1 + joined, groups)
    nodes = np.unique(nodes, return_inverse=True)[1]
    together = [pair for group in in_order(groups) for pair in combinations(np.unique(nodes[group]).tolist(), 2)]
    return nodes, np.array(together, np.int64).reshape(-1, 2)


def placed(size: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) int64 numbers of what G groups are joined to, and (G,) bool, groups that are set aside: no two of the others
    may be of one person unless they are joined.

    size: (G,) slices of each. doubts: (K, 2) int64, groups that may be of one person. Large groups are joined. A small
    one is joined where all that it may be part of is joined already, larger ones first, and set aside otherwise.
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


def cut(
    slices: Residuals, line: np.ndarray, fragments: np.ndarray, joined: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) int64 fragments and joined fragments, where two heads that one strong link holds are two; and (K, 2) slices,
    one of each: they stay in one group, but show nothing of what one person looks like.

    Of many such fragments none is cut: they may be heads that were scanned twice.
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


def _spoilt(slices: Residuals, fragments: np.ndarray) -> bool:
    """Whether a slice without strong links is unlike all heads: it may be anybody's, and noise hides whose."""
    size = np.bincount(fragments)[fragments]
    alone, held = slices.typical[size < 3], slices.typical[size >= 6]
    return bool(len(alone) and len(held) and alone.min() < np.quantile(held, _ODD))


def _beside(slices: Residuals, line: np.ndarray, long: list[np.ndarray], within: float) -> np.ndarray:
    """(K,) highest residual correlation of each slice with one of its fragment that lies so near in height."""
    found = []
    for group in long:
        alike = slices.left[group] @ slices.left[group].T
        near = np.abs(line[group][:, None] - line[group]) < within
        np.fill_diagonal(near, False)
        found.append(np.where(near, alike, -1).max(axis=1)[near.any(axis=1)])
    return np.concatenate(found)


def _evidence(slices: Residuals, line: np.ndarray, groups: np.ndarray, beside: float, level: float) -> np.ndarray:
    """(G, G) int64, symmetric: slices of two groups that have slices of the other beside them and are like none."""
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
