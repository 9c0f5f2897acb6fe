"""Settings: frozen dataclasses, a YAML file in, dotted flags over it, the resolved result saved.

A YAML file becomes flags that stand before the user's own, so both go through one parser and the
user's flags win. Unknown keys are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from veridical.bounds import check
from veridical.errors import UserError
from veridical.files import write_text

Config = TypeVar("Config")
_LARGEST = 1 << 20
"""The bytes of the largest settings file that is read."""
_MOST_VALUES = 50_000
"""How many values a settings file may hold, an alias counted as what it stands for."""
_CHOSEN = "chosen"
"""Metadata of a setting that holds the settings of a method: the method's name, and the names there are."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError if it is absent, broken or not a mapping."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file; give the settings as a YAML file.")
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise UserError(f"{path}: is larger than {_LARGEST // 1024} KiB; settings files are names with values.")
        content = _content(text.decode(), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); settings files are UTF-8 YAML.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; settings are names with values.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; settings are names with values.")
    return content


def _content(text: str, path: Path) -> Any:
    """What YAML says, once it is known to be of bounded size with its aliases written out."""
    left = [yaml.compose(text, Loader=yaml.SafeLoader)]
    seen = 0
    while left:
        node = left.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise UserError(f"{path}: holds more than {_MOST_VALUES} values, aliases written out; give fewer.")
        if isinstance(node, yaml.MappingNode):
            left.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            left.extend(node.value)
    return yaml.safe_load(text)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as {dotted name: text}, for choices that decide which settings there are."""
    texts = {}
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("-", "_")
        texts.update(dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: _words(value)})
    return texts


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def flags(settings: Mapping[str, Any], config_type: type, source: Path) -> list[str]:
    """Settings as dotted flags for `config_type`. Raises UserError naming `source` for an unknown key."""
    known = dict(fields_of(config_type))
    return [flag for name, value in _flatten(settings, known, source) for flag in _flag(name, value)]


def fields_of(config_type: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a settings class as (dotted name, type), groups before what is in them."""
    hints = typing.get_type_hints(config_type)
    for setting in dataclasses.fields(config_type):
        name = prefix + setting.name
        yield name, hints[setting.name]
        for group in _dataclasses_in(hints[setting.name]):
            yield from fields_of(group, name + ".")


def chosen(settings: type[Any], name: str, choices: Sequence[str]) -> Any:
    """A field that holds a method's settings: `parse` shows all choices, and keeps the name that was given."""
    return field(default_factory=settings, metadata={_CHOSEN: (name, tuple(choices))})


def one_of(choices: Sequence[str]) -> Any:
    """The type of a text that is one of `choices`, or the place of a user's own; `--help` shows them all."""
    import tyro

    return Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(choices)}}}")]


def several_of(choices: Sequence[str]) -> Any:
    """The type of any number of such texts."""
    import tyro

    return Annotated[tuple[str, ...], tyro.conf.arg(metavar=f"[{{{','.join(choices)}}} ...]")]


def parse(config_type: type[Config], arguments: Sequence[str], prog: str, description: str = "") -> Config:
    """The settings that flags give. Exits with status 2, and a message, for flags that can't be."""
    import tyro

    hints = typing.get_type_hints(config_type, include_extras=True)
    fields: Any = dataclasses.fields(config_type)  # type: ignore[arg-type]
    groups = {setting.name: setting.metadata[_CHOSEN] for setting in fields if _CHOSEN in setting.metadata}
    if not groups:
        plain = home_expanded(tyro.cli(config_type, args=arguments, prog=prog, description=description or None))
        check(plain)
        return plain
    shown = [(name, _with_choices(hints[name], *choice)) for name, choice in groups.items()]
    parser: Any = dataclasses.make_dataclass(
        config_type.__name__,
        [(name, group, field(default_factory=group, kw_only=True)) for name, group in shown],
        bases=(config_type,),
        frozen=True,
        namespace={"__doc__": config_type.__doc__},
    )
    parsed: Any = tyro.cli(parser, args=arguments, prog=prog, description=description or None)
    values = {setting.name: getattr(parsed, setting.name) for setting in fields}
    for name in groups:
        own = {setting.name: getattr(values[name], setting.name) for setting in dataclasses.fields(values[name])}
        values[name] = hints[name](**own)
    made = home_expanded(config_type(**values))
    check(made)
    return made


def home_expanded(settings: Config) -> Config:
    """The settings with `~` at the beginning of a path as the user's home folder, in groups of settings too."""
    changed = {}
    for setting in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, setting.name)
        if setting.init and (expanded := _at_home(value)) is not value:
            changed[setting.name] = expanded
    return dataclasses.replace(settings, **changed) if changed else settings  # type: ignore[type-var]


def _at_home(value: Any) -> Any:
    if isinstance(value, Path):
        return value.expanduser() if str(value).startswith("~") else value
    if isinstance(value, tuple):
        expanded = tuple(map(_at_home, value))
        return expanded if any(a is not b for a, b in zip(expanded, value, strict=True)) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return home_expanded(value)
    return value


def _with_choices(settings: type[Any], name: str, choices: Sequence[str]) -> type[Any]:
    return dataclasses.make_dataclass(
        settings.__name__,
        [("name", one_of(choices), field(default=name))],
        bases=(settings,),
        frozen=True,
        namespace={"__doc__": settings.__doc__},
    )


def to_plain(value: Any) -> Any:
    """A settings value as what YAML and JSON hold: mappings, lists, strings, numbers, booleans, None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {setting.name: to_plain(getattr(value, setting.name)) for setting in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def save_resolved(config: Any, path: Path) -> None:
    """Write the settings of a run as YAML that the same command reads again; whole or not at all."""
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False))


def _dataclasses_in(hint: Any) -> list[type]:
    """The settings classes that a field's type is, or is a union of."""
    members = typing.get_args(hint) or (hint,)
    return [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]


def _flatten(
    settings: Mapping[str, Any], known: Mapping[str, Any], source: Path, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}."
            raise UserError(f"{source}: unknown setting {name!r}; {hint}")
        if _dataclasses_in(known[name]) and isinstance(value, Mapping):
            yield from _flatten(value, known, source, f"{name}.")
        else:
            yield name, value


def _flag(name: str, value: Any) -> list[str]:
    parents, dot, leaf = name.rpartition(".")
    if isinstance(value, bool):
        return [f"--{parents}{dot}{'' if value else 'no-'}{leaf.replace('_', '-')}"]
    if isinstance(value, Mapping):
        return [f"--{name}", *(str(part) for item in value.items() for part in item)]
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) != 1:
        return [f"--{name}", *map(str, value)]
    only = value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value
    # With "=", a value that starts with a dash is not taken for another flag.
    return [f"--{name}={only}"]
