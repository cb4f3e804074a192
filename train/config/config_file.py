"""`read_config`: the options in a YAML file, in `run.json` or in `options.json`. Imports no torch.

The file is parsed into nodes, which have line numbers, and no object is constructed from it: a scalar's text is
converted to the type of its option, as on the command line. So `1e-3` is a number, and `country: NO` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from stageproof.runtime.errors import InputError
from stageproof.runtime.system.regular_files import read_text
from stageproof.runtime.text.hints import command, nearest, nearest_path
from stageproof.train.config.option_values import SETTINGS, all_options
from stageproof.train.runs.record import located

_LARGEST = 1 << 20
"""Limit on the bytes of a configuration file."""
_COMMAND_LINE_ONLY = ("config", "show_config", "resume")
_NO_OPTIONS = ("name", "extends", "extended")
_OF_ONE_RUN = ("out", "json", *_NO_OPTIONS, *_COMMAND_LINE_ONLY)
"""Entries in the record of a run that do not apply to another run."""
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in "str int float bool null timestamp value merge".split())
_NOTHING = ("", "~", "null", "Null", "NULL")
_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d{1,19}", re.ASCII)
_FLAGS = {text: value for value in (True, False) for text in (str(value), str(value).lower(), str(value).upper())}
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class ConfigFile:
    """The options in a configuration file."""

    path: Path
    values: Mapping[str, Any]
    """Key, as in `option_values.all_options` → value, of the option's type."""
    lines: Mapping[str, int]
    """Key → line, from 1."""

    def where(self, key: str) -> str:
        """The file and line of an option, for messages."""
        return f"{self.path}, line {self.lines[key]}"


def read_config(path: Path) -> ConfigFile:
    """The options in a file. Of a run's record, `out`, `json` and `resume` are not used.

    Raises InputError for a file that cannot be read, and for an unknown, repeated or wrongly typed option, with its
    line. The values themselves are checked later, with those of the command line.
    """
    root = _root(path)
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} contains no options. Expected lines such as batch_size: 32. {_advice()}")
    parts = {name.value: one for name, one in root.value if isinstance(one, yaml.MappingNode) and _is_text(name)}
    if {"options", "recipe"} <= set(parts):  # run.json
        return _converted(path, chain(_entries(parts["options"], path), _entries(parts["recipe"], path)), of_run=True)
    if SETTINGS in parts:  # options.json of an unfinished run
        rest = (one for one in _entries(root, path) if not one[0].startswith(f"{SETTINGS}."))
        return _converted(path, chain(rest, _entries(parts[SETTINGS], path)), of_run=True)
    return _converted(path, _entries(root, path), of_run=False)


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode)


def _converted(path: Path, entries: Iterable[tuple[str, int, yaml.Node]], of_run: bool) -> ConfigFile:
    known = all_options()
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, line, node in entries:
        where = f"{path}, line {line}"
        if of_run and key in _OF_ONE_RUN:
            continue
        if key in _COMMAND_LINE_ONLY:
            raise InputError(f"{where}: {key} is given on the command line only. Remove it from the file.")
        if key in lines:
            raise InputError(f"{where}: {key} is given twice, first in line {lines[key]}. Remove one of them.")
        if key not in known or key in _NO_OPTIONS:
            also = nearest(key, known.keys() - set(_NO_OPTIONS))
            raise InputError(f"{where}: there is no option {key}.{also} {_advice()}")
        try:
            values[key] = _value(node, known[key].kind)
        except ValueError as error:
            raise InputError(f"{where}: {key} is {_text(node)}, expected {error}.") from error
        lines[key] = line
        if of_run and key in ("data", "groups") and values[key] is not None:
            values[key] = located(values[key], path.parent)
    return ConfigFile(path, values, lines)


def _root(path: Path) -> yaml.Node | None:
    if path.is_dir():
        raise InputError(f"--config {path} is a folder. Give a file, such as {path / 'run.json'} of a run.")
    try:
        node: yaml.Node | None = yaml.compose(read_text(path, _LARGEST), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise InputError(f"--config {path} does not exist.{nearest_path(path)} {_advice()}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: this is not YAML: {error.problem or error.context}. {_advice()}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"--config {path} cannot be read: {str(error).splitlines()[0]}. {_advice()}") from error
    return node


def _advice() -> str:
    return f"{command('train', '--show-config')} prints all options."


def _entries(node: yaml.MappingNode, path: Path, prefix: str = "") -> Iterator[tuple[str, int, yaml.Node]]:
    """(key, line, value node) of all scalars and lists; ``-`` in a key is ``_``, as on the command line."""
    for name, value in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            raise InputError(f"{path}, line {line}: an option's name is {_text(name)}, expected text.")
        key = prefix + name.value.replace("-", "_")
        if isinstance(value, yaml.MappingNode) and prefix.count(".") < 2:  # no option has more than one point
            yield from _entries(value, path, f"{key}.")
        else:
            yield key, line, value


def _value(node: yaml.Node, kind: Any) -> Any:
    """The value of a node. Raises ValueError that says what was expected."""
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if isinstance(node, yaml.ScalarNode) and node.tag not in _TAGS:
        raise ValueError("no tag")
    if get_origin(kind) in (Union, UnionType):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return None if plain and node.value in _NOTHING else _value(node, inner)
    if get_origin(kind) is tuple:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError("a list, such as [2, 4]")
        return tuple(_value(one, get_args(kind)[0]) for one in node.value)
    if get_origin(kind) is Literal:
        choices = {str(one): one for one in get_args(kind) if plain or isinstance(one, str)}
        if not isinstance(node, yaml.ScalarNode) or node.value not in choices:
            raise ValueError(f"one of {', '.join(map(str, get_args(kind)))}")
        return choices[node.value]
    if kind in _EXPECTED:
        if plain and kind is bool and node.value in _FLAGS:
            return _FLAGS[node.value]
        if plain and kind is not bool and (_WHOLE if kind is int else _NUMBER).fullmatch(node.value):
            return kind(node.value)
        raise ValueError(_EXPECTED[kind])
    assert kind in (str, Path), f"an option of type {kind} cannot be read from a file"
    if not isinstance(node, yaml.ScalarNode) or (plain and node.value in _NOTHING):
        raise ValueError("text" if kind is str else "a path")
    # JSON escapes a character beyond U+FFFF as two surrogates.
    return kind(node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        text = f"{node.value[:60]}{'…' if len(node.value) > 60 else ''}"
        tag = "" if node.tag in _TAGS else f"{node.tag} "
        return tag + (repr(text) if node.style or not text else text)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
