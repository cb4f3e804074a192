"""Which network a state dict is of, told from the names and shapes of its tensors.

A network fits under a prefix if all of its tensors are there with their shapes, and if whatever else the state dict
contains is known not to belong to a network (`train.foreign.bookkeeping`). The prefix may be any; there must be one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import LARGEST
from stageproof.runtime.networks.spec import NetworkSpec
from stageproof.train.foreign.bookkeeping import bookkeeping
from stageproof.train.foreign.imagenet import current_names
from stageproof.train.foreign.signatures import (
    COUNTER,
    POSITIONS,
    Head,
    Signature,
    candidates,
    read_head,
    shape_of,
    signature,
)
from stageproof.train.foreign.weight_files import Contents

_ELSEWHERE = (
    "If it is another network, export it to ONNX where its code is (torch.onnx.export), and give the .onnx file."
)


@dataclass(frozen=True)
class Identified:
    """The network of a checkpoint, and its tensors under the names that the network has here."""

    spec: NetworkSpec
    state: dict[str, torch.Tensor]
    key: str
    """Key of the entry of the checkpoint, such as ``state_dict``; "" for the file itself."""
    prefix: str
    """Prefix that the names have in the file, such as ``module.``; "" for none."""
    head: Head
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """What → tensors that are not of the network and were left out."""

    @property
    def where(self) -> str:
        """Key and prefix, for messages; empty if there are none."""
        return " ".join(
            part
            for part in (f"key {self.key}" if self.key else "", f"prefix {self.prefix}" if self.prefix else "")
            if part
        )


@dataclass(frozen=True)
class _Attempt:
    """One network compared with one state dict under one prefix."""

    signature: Signature
    key: str
    prefix: str
    differences: tuple[str, ...]
    """Sentences on what differs; () if the network fits."""
    found: int
    """Number of the network's tensors that are there with their shapes."""
    head: Head | None = None
    dropped: dict[str, list[str]] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    """Names of the network's tensors in the state dict."""


def identify(
    contents: Contents, architecture: str | None = None, key: str | None = None, most: int | None = LARGEST
) -> Identified:
    """The network of the checkpoint.

    architecture: compare with this network alone; None: with all. key: the entry, or the prefix of the names, to use
    if several fit. most: largest number of classes; None for any.

    Raises CheckpointError if no network or several networks fit, InputError for an `architecture` or a `key` that
    contradicts the file.
    """
    entries = _chosen(contents, key)
    attempts = _all_attempts(entries, architecture)
    fitting = [one for one in attempts if not one.differences]
    if not fitting:
        current = {name: current_names(state) for name, state in entries.items()}
        if again := [one for one in _all_attempts(current, architecture) if not one.differences]:
            entries, fitting = current, again
    if key:
        fitting = [one for one in fitting if one.key == key or one.prefix.rstrip(".") == key.rstrip(".")] or fitting
    if not fitting:
        raise _nothing_fits(contents, attempts, architecture)
    _assert_one(contents, fitting)
    (found,) = fitting
    assert found.head is not None, "an attempt without differences has a head"
    state = entries[found.key]
    renamed = {name: state[f"{found.prefix}{name}"] for name in found.signature.body}
    renamed |= {ours: state[theirs] for ours, theirs in found.head.names.items()}
    spec = _spec(contents, found, state, most)
    _assert_exact(contents, spec, renamed)
    return Identified(spec, renamed, found.key, found.prefix, found.head, found.dropped)


def _chosen(contents: Contents, key: str | None) -> dict[str, dict[str, torch.Tensor]]:
    """The entries to compare: the one with the key, or all. Raises InputError if `key` is neither entry nor prefix."""
    if not key:
        return contents.entries
    if key in contents.entries:
        return {key: contents.entries[key]}
    prefix = f"{key.rstrip('.')}."
    found = {
        name: {one: tensor for one, tensor in state.items() if one.startswith(prefix)}
        for name, state in contents.entries.items()
    }
    if found := {name: state for name, state in found.items() if state}:
        return found
    there = [name for name in contents.entries if name]
    there = there or sorted({name.partition(".")[0] for state in contents.entries.values() for name in state})
    raise InputError(
        f"--checkpoint-key is {key!r}, but {contents.path} has no such entry or prefix. It has: "
        f"{', '.join(there[:12])}."
    )


def _all_attempts(entries: Mapping[str, Mapping[str, torch.Tensor]], architecture: str | None) -> list[_Attempt]:
    attempts = []
    for name, state in entries.items():
        signatures = candidates(state) if architecture is None else [signature(architecture)]
        attempts += [one for found in signatures for one in _attempts(found, state, name)]
    return attempts


def _attempts(found: Signature, state: Mapping[str, torch.Tensor], key: str) -> list[_Attempt]:
    """The network compared with the state dict under each prefix under which its first convolution is there."""
    stems = [name for name in state if name == found.stem or name.endswith(f".{found.stem}")]
    prefixes = [name.removesuffix(found.stem) for name in stems]
    if not prefixes:
        return [_Attempt(found, key, "", (f"it lacks {found.stem}",), 0)]
    attempts = {prefix: _compared(found, state, key, prefix) for prefix in prefixes}
    whole = {prefix: one.own for prefix, one in attempts.items() if one.head and one.found == len(found.body)}
    if len(whole) > 1:  # each is left out of the comparison of the others, so that the message can name them
        for prefix in whole:
            others = {name for other, own in whole.items() if other != prefix for name in own}
            attempts[prefix] = _compared(found, state, key, prefix, others)
    return list(attempts.values())


def _compared(
    found: Signature, state: Mapping[str, torch.Tensor], key: str, prefix: str, others_own: Collection[str] = ()
) -> _Attempt:
    lacking, others, matched = [], [], 0
    for name, expected in found.body.items():
        tensor = state.get(f"{prefix}{name}")
        if tensor is None:
            lacking.append(name)
        elif tensor.ndim != len(expected) or any(
            size and size != other for size, other in zip(expected, tensor.shape, strict=True)
        ):
            others.append(f"{name} {tuple(tensor.shape)} in place of {tuple(size or '*' for size in expected)}")
        else:
            matched += 1
    head, problem = read_head(found, state, prefix)
    own = {f"{prefix}{name}" for name in found.body} | set(head.names.values() if head else ())
    rest = [name for name in state if name not in own and name not in others_own and not name.endswith(COUNTER)]
    auxiliary = [name for name in rest if name.removeprefix(prefix).startswith(found.unused or ("\0",))]
    in_root = [name for name in rest if name.startswith(f"{prefix}{found.root}.")] if problem else []
    dropped, unknown = bookkeeping(name for name in rest if name not in auxiliary and name not in in_root)
    if auxiliary:
        dropped["auxiliary classifiers, used in training only"] = auxiliary
    differences = [
        _sentence("it lacks", lacking),
        _sentence("it has other shapes:", others),
        problem,
        _sentence("it has tensors that this network does not have:", unknown),
    ]
    different = tuple(one for one in differences if one)
    return _Attempt(found, key, prefix, different, matched, head, dropped, frozenset(own))


def _sentence(start: str, names: Sequence[str]) -> str:
    return f"{start} {', '.join(names[:3])}{f' ({len(names)} in all)' if len(names) > 3 else ''}" if names else ""


def _nothing_fits(contents: Contents, attempts: Sequence[_Attempt], architecture: str | None) -> Exception:
    """The error for a checkpoint that no network fits, with the closest one."""
    best = max(attempts, key=lambda one: (one.found / len(one.signature.body), one.found), default=None)
    if architecture is not None:
        assert best is not None, "each entry was compared with the network"
        differs = "; ".join(best.differences)
        try:
            other = identify(contents).spec.architecture
        except CheckpointError:
            return CheckpointError(f"{contents.path} does not fit {architecture}: {differs}. {_ELSEWHERE}")
        return InputError(
            f"--architecture is {architecture}, but the tensors of {contents.path} are those of {other}: for "
            f"{architecture}, {differs}. Leave --architecture out, or give {other}."
        )
    if best is None or not best.found:
        names = [f"{key}.{name}" if key else name for key, state in contents.entries.items() for name in state]
        return CheckpointError(
            f"{contents.path} fits no network that is known here: none has names such as {', '.join(names[:3])}. "
            f"{_ELSEWHERE}"
        )
    where = f" (under {best.prefix})" if best.prefix else ""
    return CheckpointError(
        f"{contents.path} fits no network that is known here. The closest is {best.signature.architecture}{where}, "
        f"with {best.found} of {len(best.signature.body)} tensors, but {'; '.join(best.differences)}. {_ELSEWHERE}"
    )


def _assert_one(contents: Contents, fitting: Sequence[_Attempt]) -> None:
    """Raise CheckpointError if several networks fit, or one in several places."""
    networks = list(dict.fromkeys(one.signature.architecture for one in fitting))
    places = list(dict.fromkeys((one.key, one.prefix) for one in fitting))
    if len(places) > 1:
        names = [prefix.rstrip(".") if len({key for key, _ in places}) == 1 else key for key, prefix in places]
        shown = [name or "the file itself" for name in names]
        choice = next((name for name in names if name), "KEY")
        raise CheckpointError(
            f"{contents.path} contains {len(places)} state dicts of {' or '.join(networks)}: {', '.join(shown)}. "
            f"Choose the one to use, such as --checkpoint-key {choice}"
        )
    if len(networks) > 1:
        raise CheckpointError(
            f"The tensors of {contents.path} fit {' and '.join(networks)} alike. Name the network: --architecture "
            f"{networks[0]}"
        )


def _spec(contents: Contents, found: _Attempt, state: Mapping[str, torch.Tensor], most: int | None) -> NetworkSpec:
    """The specification of the network that fits. Raises CheckpointError for channels, classes or a number of positions
    that are not supported."""
    assert found.head is not None, "an attempt without differences has a head"
    name = found.signature.architecture
    channels = int(state[f"{found.prefix}{found.signature.stem}"].shape[1])
    if channels not in (1, 3):
        raise CheckpointError(
            f"{contents.path} is {name} for {channels} input channels, expected 1 (grey) or 3 (colour)."
        )
    classes = found.head.classes
    if classes < 2:
        raise CheckpointError(
            f"{contents.path} is {name} with {classes} output, as for a sigmoid, expected 2 to {LARGEST} outputs, one "
            "for each class. Give it a second output with weights and bias 0; softmax then equals the sigmoid."
        )
    if most is not None and classes > most:
        imagenet = " These are ImageNet's classes: train it first, with --weights." if classes == 1000 else ""
        raise CheckpointError(
            f"{contents.path} is {name} with {classes} outputs, expected 2 to {most}, one for each class.{imagenet}"
        )
    size = None
    if POSITIONS in found.signature.body:
        positions = int(state[f"{found.prefix}{POSITIONS}"].shape[1]) - 1
        side = round(positions**0.5)
        if side * side != positions or side < 1:
            raise CheckpointError(
                f"{contents.path} is {name} with {positions} positions, expected a square number: the patches of a "
                "square image."
            )
        size = side * found.signature.patch
    return NetworkSpec.of(name, classes, channels, found.head.kind, size)


def _assert_exact(contents: Contents, spec: NetworkSpec, state: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError unless the network of `spec` has exactly these names and shapes."""
    expected = shape_of(spec)
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != got:
        different = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
        raise CheckpointError(f"{contents.path} does not fit {spec.architecture}: {', '.join(different[:3])} differ.")
