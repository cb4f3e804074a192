"""Which groups of slices are certainly different people: learned by tearing groups that are certainly one person.

Groups that strong links hold together are torn where slices are taken out, as if these were missing from the set: that
shows how parts of one person look to each other. A logistic regression tells them from pairs of groups; the lower tail
of the scores of torn parts, extrapolated (peaks over threshold, Pickands 1975), says how probable it is that parts of
one person score as low as some level. Groups are kept apart only below a level at which the expected number of people
torn is small. In doubt groups are joined.
"""

from __future__ import annotations

import math

import numpy as np

from train.data.evidence import BESIDE, BETWEEN, EXPECTED, PAIRS, References, Tears, most_similar, ordered, tear
from train.data.linking import components
from train.data.residual import Residuals

RISK = 0.005
"""Expected number of people torn, at most."""
_STRONG, _STRONG_FROM, _STRONG_TO = 7.5, 0.3, 0.75  # a strong link: spreads above the centre, within these limits
_SURE = 4.0  # score from which two groups are joined as one person before the next round
_FAR = 2.0  # lead in log odds of a fragment's own group over another from which that is out of the question
_ROUNDS, _TEARS, _MOST_TEARS, _FEWEST_TEARS = 4, 100, 5000, 200
_WIDEST = 8  # slices that are taken out beyond those with strong links, at most
_SOMETHING = 0.45  # expected residual correlation below which not being alike means nothing
_FEWEST_GROUPS, _FEWEST_SEEN = 5, 40
_ODD = 0.001  # quantile of the likeness of slices to other heads below which a slice alone is spoilt


def strong_level(slices: Residuals) -> float:
    """Residual correlation from which two slices are of one person."""
    return min(max(slices.centre + _STRONG * slices.spread, _STRONG_FROM), _STRONG_TO)


def part(slices: Residuals, fragments: np.ndarray, joined: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """(N,) int64 groups, unions of whole people, and the expected number of people torn (1: nothing can be said).

    fragments: (N,) int64 from 0, slices that strong links hold together. joined: (N,) int64 from 0, unions of
    fragments that are one person for another reason (copies).
    """
    nothing = np.zeros(len(joined), np.int64), 1.0
    size = np.bincount(fragments)
    if not _FEWEST_GROUPS <= len(size) <= len(fragments) / 3 or len(size) * len(fragments) > 1.2e8:
        return nothing
    if _spoilt(slices, fragments):
        return nothing
    orders = [ordered(members, slices) for members in _members(fragments)]
    cuts, source = _tears(slices, orders, fragments, seed)
    if len(source) < _FEWEST_TEARS or len(np.unique(source)) < _FEWEST_GROUPS:
        return nothing
    known = References(slices, fragments, *most_similar(slices, fragments))
    start, share = int(joined.max()) + 1, 0.0
    for number in range(_ROUNDS):
        known = known.joined(joined)
        tears = np.concatenate([cut.features(known) for cut in cuts])
        pairs, features = _pairs(known, joined)
        model = _Scores(features, tears, source)
        scores = model.of(features)
        share = max(share, float((model.torn > _SURE).mean()))
        sure = scores > _SURE
        if number == _ROUNDS - 1 or not sure.any():
            break
        joined = components_of(int(joined.max()) + 1, pairs[sure])[joined]
    found = start - int(joined.max()) - 1
    # Each tear that was mended was one of a share of all tears: what is left, with a Poisson bound on what was seen.
    tears_there = (found + 2 * math.sqrt(found + 1) + 2) / max(share, 0.1)
    # Where little is expected groups are joined anyway: the level has to be safe where much is.
    level, error = _level(model.torn, _blind(tears), tears_there)
    doubt = pairs[(scores > level) | _blind(features)]
    closed = [doubt, *_fragment_doubts(known, model, fragments, joined, level)]
    return components_of(int(joined.max()) + 1, np.concatenate(closed))[joined], error


def components_of(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int64 from 0: what the (K, 2) pairs join."""
    return components(count, pairs[:, 0], pairs[:, 1])


def _members(groups: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _spoilt(slices: Residuals, fragments: np.ndarray) -> bool:
    """Whether a slice without strong links is unlike all heads: it may be anybody's, and noise hides whose."""
    size = np.bincount(fragments)[fragments]
    alone, held = slices.typical[size < 3], slices.typical[size >= 6]
    return bool(len(alone) and len(held) and alone.min() < np.quantile(held, _ODD))


def _pairs(known: References, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, 2) all pairs of groups, the smaller first, and their (K, 11) features."""
    size = np.bincount(groups)
    rank = np.lexsort((np.arange(len(size)), size))
    members = _members(groups)
    pairs, features = [], []
    for place, g in enumerate(rank[:-1]):
        larger = rank[place + 1 :]
        found = known.against(members[g], larger)
        for at in np.flatnonzero(_blind(found)):  # seen from the other group, a common height may show
            found[at] = known.against(members[larger[at]], np.array([g]))[0]
        features.append(found)
        pairs.append(np.stack([np.full(len(larger), g), larger], axis=1))
    return np.concatenate(pairs), np.concatenate(features)


def _tears(
    slices: Residuals, orders: list[np.ndarray], fragments: np.ndarray, seed: int
) -> tuple[list[Tears], np.ndarray]:
    """Parts of one fragment that no strong link joins, by number of pairs, and (T,) int64 the fragment of each.

    A fragment is cut at a random place, and slices are taken out beside it until no strong link is left across, and of
    every second one some more.
    """
    rng = np.random.default_rng(seed)
    level = strong_level(slices)
    usual = np.median(np.bincount(fragments)[fragments])
    long = [g for g, order in enumerate(orders) if len(order) >= max(6, 0.5 * usual)]
    found: dict[int, list[tuple[Tears, int]]] = {}
    for g in long:
        order = orders[g]
        alike = slices.left[order] @ slices.left[order].T
        for _ in range(min(_TEARS, max(_MOST_TEARS // len(long), 3))):
            cut, turned = int(rng.integers(1, len(order))), rng.random() < 0.5
            more = max(int(rng.integers(-_WIDEST, _WIDEST)), 0)
            for gap in range(len(order)):
                low, high = (cut - gap, cut) if turned else (cut, cut + gap)
                if low < 1 or high >= len(order):
                    break
                if alike[:low, high:].max() <= level:
                    low, high = max(low - turned * more, 1), min(high + (not turned) * more, len(order) - 1)
                    one = tear(order[:low], order[high:], slices)
                    found.setdefault(len(one.one), []).append((one, g))
                    break
    batches = []
    for same in found.values():
        smaller, larger, holes = (
            np.concatenate([getattr(cut, name) for cut, _ in same], axis=1) for name in ("one", "other", "holes")
        )
        batches.append(Tears(smaller, larger, holes, np.concatenate([cut.sizes for cut, _ in same])))
    return batches, np.array([g for same in found.values() for _, g in same], np.int64)


class _Scores:
    """Log odds of two groups being parts of one person, up to a constant; of tears by a model that has not seen their
    group."""

    def __init__(self, features: np.ndarray, tears: np.ndarray, source: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        terms = np.concatenate([_terms(features), _terms(tears)])
        self.middle, self.scale = terms.mean(axis=0), terms.std(axis=0) + 1e-9
        values = (terms - self.middle) / self.scale
        target = np.r_[np.zeros(len(features)), np.ones(len(tears))]
        self.models = []
        self.torn = np.empty(len(tears))
        for half in range(2):
            unseen = np.r_[np.zeros(len(features), bool), source % 2 == half]
            model = LogisticRegression(C=0.3, max_iter=200, class_weight="balanced")
            model.fit(values[~unseen], target[~unseen])
            self.models.append(model)
            self.torn[source % 2 == half] = model.decision_function(values[unseen])

    def of(self, features: np.ndarray) -> np.ndarray:
        """(K,) scores: the higher of the two models'."""
        values = (_terms(features) - self.middle) / self.scale
        return np.max([model.decision_function(values) for model in self.models], axis=0)


def _terms(features: np.ndarray) -> np.ndarray:
    """(K, 22) features, their squares and products, for a regression that is linear in them."""
    alike, six = features[:, :2], features[:, :6]
    products = [alike * features[:, [2]], alike * features[:, [4]], six**2, features[:, [6]] * features[:, [0, 2, 4]]]
    return np.concatenate([features, *products], axis=1)


def _blind(features: np.ndarray) -> np.ndarray:
    """(K,) bool: pairs of groups that nothing shows to have a height in common; they are never kept apart."""
    return (features[:, EXPECTED] < _SOMETHING) & (features[:, BESIDE] < BETWEEN / PAIRS)


def _level(torn: np.ndarray, blind: np.ndarray, tears: float) -> tuple[float, float]:
    """Score below which parts of one person are expected less than RISK times among so many tears; and that number.

    torn: (T,) scores of torn parts. blind: (T,) bool, those that are joined whatever they score.
    """
    rank = np.sort(torn[~blind])
    if len(rank) < _FEWEST_SEEN:
        lowest = rank[0] if len(rank) else float(np.quantile(torn, 0.05))
        return float(lowest - 1.5 * math.log(max(tears / (len(torn) * RISK), 1.0))), RISK
    beyond = max(len(rank) // 20, 20)
    start = rank[beyond]
    # An exponential tail; the mean excess of the lowest hundredth, where that is more: the tail may be heavier.
    lowest = max(len(rank) // 100, 10)
    excess = max(float((start - rank[:beyond]).mean()), float((rank[lowest] - rank[:lowest]).mean()))
    level = start - excess * math.log(max(tears * (beyond / len(torn)) / RISK, 1.0))
    return min(float(level), float(rank[0])), RISK


def _fragment_doubts(
    known: References, model: _Scores, fragments: np.ndarray, joined: np.ndarray, level: float
) -> list[np.ndarray]:
    """(K, 2) pairs of groups, where a fragment in the first may have been joined to the wrong one.

    A fragment is of one person, so that its score with the rest of its group counts against all others.
    """
    found = []
    slices = known.slices
    for members in _members(fragments):
        own = joined[members[0]]
        rest = np.setdiff1d(np.flatnonzero(joined == own), members)
        if not len(rest):
            continue
        parts = tear(ordered(members, slices), ordered(rest, slices), slices)
        mine = float(model.of(parts.features(known))[0])
        others = np.delete(np.arange(int(joined.max()) + 1), own)
        scores = model.of(known.against(members, others))
        doubt = others[(scores > level) & (scores > mine - _FAR)]
        found.append(np.stack([np.full(len(doubt), own), doubt], axis=1))
    return found
