"""One registry for what veridical brings and what users add: a name, a lazy target, one line about it.

Whoever has a method of their own gives it by its place, `path/file.py:name` or `package.module:name`; by a name that a
decorator (`@veridical.construction`) gave it in this process; or by an entry point of an installed package:

    [project.entry-points."veridical.constructions"]
    my-method = "my_package.my_module:my_function"
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from veridical.errors import UserError

Target = TypeVar("Target")
Made = TypeVar("Made")
_PLUGIN = "veridical_plugin_"
"""What the module of a user's file is called, before the file's name and a hash of its path."""


class Own(NamedTuple):
    """An entry that comes with veridical: where it is, as `module:attribute` or `module`, what it does, after whom."""

    target: str
    summary: str
    source: str = ""
    """The method's name and the paper's number on arXiv."""

    @property
    def line(self) -> str:
        """The summary with its source."""
        return f"{self.summary} ({self.source})" if self.source else self.summary


@dataclass(frozen=True)
class Listed:
    """A line of `veridical list`."""

    name: str
    summary: str
    origin: str
    """Where it is from: veridical, a file, or an installed package."""


@dataclass(frozen=True)
class Registry(Generic[Target]):
    """All of one kind by name. A mapping's names and membership are those that come with veridical."""

    kind: str
    """What one is called, such as "construction"."""
    group: str
    """The entry-point group, such as "veridical.constructions"."""
    own: Mapping[str, Own]
    check: Callable[[Any], str | None]
    """Says what is wrong with the shape of something that a user brings; None where it is right."""
    _added: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def __contains__(self, name: object) -> bool:
        return name in self.own

    def names(self) -> tuple[str, ...]:
        """Every name: veridical's own, those of decorators in this process, those of installed packages."""
        return tuple(dict.fromkeys([*self.own, *self._added, *self._entry_points()]))

    def summary(self, name: str) -> str:
        """The one-line summary of `name`."""
        return self.own[name].line if name in self.own else _first_line(self.get(name))

    def listed(self) -> list[Listed]:
        """Every entry with its line. An entry point that can't be imported is listed with the reason."""
        entries = [Listed(name, own.line, "veridical") for name, own in self.own.items()]
        entries += [Listed(name, _first_line(made), _file_of(made)) for name, made in self._added.items()]
        for name, point in self._entry_points().items():
            package = point.dist.name if point.dist else point.value
            try:
                summary = _first_line(self.get(name))
            except UserError as error:
                summary = f"can't be used: {error}"
            entries.append(Listed(name, summary, package))
        return entries

    def attributes(self) -> list[str]:
        """The names of the classes and functions of veridical's own entries."""
        return [entry.target.partition(":")[2] for entry in self.own.values()]

    def attribute(self, package: str, name: str) -> Any:
        """The class of that name among veridical's own, for a package's `__getattr__`. Raises AttributeError."""
        for entry in self.own.values():
            if entry.target.partition(":")[2] == name:
                return _attribute(entry.target)
        near = difflib.get_close_matches(name, self.attributes(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    def get(self, name: str, flag: str = "") -> Target:
        """What `name` stands for: a name, `module:attribute` or `path/file.py:attribute`.

        Raises UserError, naming `flag`, for an unknown name, and for a user's object that can't be imported or has
        another shape.
        """
        target: Target
        if name in self.own and name not in self._entry_points():
            target = _attribute(self.own[name].target)
            return target
        if name in self._added:
            target = self._added[name]
            return target
        return self._foreign(name, flag)

    def name_of(self, made: Any) -> str:
        """The name of a user's object in this process; one that has none yet is added under its own."""
        named = next((name for name, one in self._added.items() if one is made), None)
        ours = next((name for name, one in self.own.items() if one.target == _place(made)), None)
        if known := ours or named:
            return known
        self.add(made, name := str(made.__name__).replace("_", "-"))
        return name

    def add(self, made: Any, name: str) -> None:
        """Give something of the user's a name in this process. Raises UserError for a wrong shape or a taken name."""
        where = _file_of(made)
        self._refuse_shape(made, f"{where}: {getattr(made, '__name__', made)}")
        before = self._added.get(name)
        same = before is not None and (_file_of(before), _called(before)) == (where, _called(made))
        if name in self.own or (before is not None and not same):
            whose = "comes with veridical" if name in self.own else f"was given in {_file_of(before)}"
            raise UserError(f"{where}: the {self.kind} name {name!r} is taken, it {whose}; choose another name.")
        self._added[name] = made

    def decorator(self, given: Any, name: str | None, name_of: Callable[[Any], str]) -> Any:
        """`@decorator`, `@decorator("name")` or `@decorator(name="name")`: adds what it stands over."""
        if given is not None and not isinstance(given, str):
            self.add(given, name or name_of(given))
            return given

        def add(made: Made) -> Made:
            self.add(made, given or name or name_of(made))
            return made

        return add

    def _foreign(self, name: str, flag: str) -> Target:
        where = f"{flag}: " if flag else ""
        point = self._entry_points().get(name)
        if point is not None and name in self.own:
            package = point.dist.name if point.dist else point.value
            raise UserError(
                f"{where}the {self.kind} {name!r} comes with veridical, and the installed package {package} takes the "
                f"same name; rename it in that package's entry points, or uninstall it."
            )
        place = point.value if point is not None else name
        file, _, attribute = _split(place)
        if not file:
            near = difflib.get_close_matches(name, known := self.names(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            article = "an" if self.kind[0] in "aeiou" else "a"
            own = f" {article.capitalize()} {self.kind} of your own is given as path/file.py:name."
            raise UserError(f"{where}no {self.kind} {name!r}; {hint}{'' if near else own}")
        before = set(self._added)
        module = _module(file, where)
        if attribute:
            found: Any = module
            for part in attribute.split("."):
                if not hasattr(found, part):
                    public = [var for var in vars(module) if not var.startswith("_")]
                    close = difflib.get_close_matches(attribute, public, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(public) or 'nothing'}."
                    raise UserError(f"{where}{file} has no {attribute}; {hint}")
                found = getattr(found, part)
        else:
            found = self._only_one(module, file, before, where)
        self._refuse_shape(found, f"{where}{place}")
        target: Target = found
        return target

    def _only_one(self, module: ModuleType, file: str, before: set[str], where: str) -> Any:
        """What a file holds of this kind, where it decorates one, or is itself one."""
        there = [added for name, added in self._added.items() if getattr(added, "__module__", None) == module.__name__]
        if not there and self.check(module) is None:
            return module
        if len(there) != 1:
            raise UserError(
                f"{where}{file} holds {len(there) or 'no'} decorated {self.kind}{'s' * (len(there) != 1)}; say which "
                f"object is meant, as {file}:name."
            )
        return there[0]

    def _refuse_shape(self, made: Any, where: str) -> None:
        try:
            wrong = self.check(made)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            raise UserError(f"{where} is not of the shape of a {self.kind}: {wrong.rstrip('.')}.")

    def _entry_points(self) -> Mapping[str, EntryPoint]:
        return _entry_points(self.group)


def lacks(made: Any, methods: Sequence[str]) -> str | None:
    """What a class of settings lacks: to be a dataclass, a name, defaults, methods. None where nothing."""
    if not isinstance(made, type) or not dataclasses.is_dataclass(made):
        return "it is no dataclass; its fields are its settings, its name among them"
    fields = {setting.name: setting for setting in dataclasses.fields(made)}
    bare = [n for n, setting in fields.items() if setting.default is MISSING and setting.default_factory is MISSING]
    if bare:
        return f"the setting {bare[0]} has no default"
    if "name" not in fields:
        return 'it has no field `name`, such as `name: str = "mine"`'
    absent = [method for method in methods if not callable(getattr(made, method, None))]
    return f"it has no method {absent[0]}()" if absent else None


def name_of_settings(made: Any) -> str:
    """The name that a class of settings has by default."""
    return str({setting.name: setting for setting in dataclasses.fields(made)}["name"].default)


@functools.cache
def _entry_points(group: str) -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}


def is_place(name: str) -> bool:
    """Whether a name says where a user's object is: `path/file.py`, `path/file.py:name` or `module:name`."""
    return bool(_split(name)[0])


def label(name: str) -> str:
    """A short name, fit for a folder, of what a name or place stands for."""
    file, _, attribute = _split(name)
    if not file:
        return name
    return (attribute or Path(file).stem).rpartition(".")[2].replace("_", "-")


def loaded_files() -> tuple[str, ...]:
    """The users' files that this process has loaded, for other processes to load them too."""
    return tuple(str(module.__file__) for name, module in sys.modules.items() if name.startswith(_PLUGIN))


def load_files(paths: tuple[str, ...]) -> None:
    """Load users' files, so that what is in them can be unpickled. Raises UserError for one that can't be."""
    for path in paths:
        _module(path, "")


def _split(name: str) -> tuple[str, str, str]:
    """The file or module and the attribute of a place; empty where a name is no place."""
    if re.fullmatch(r"(?s).+\.py", name):
        return name, "", ""
    file, colon, attribute = name.rpartition(":")
    if colon and file and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", attribute):
        return file, colon, attribute
    return "", "", ""


def _module(file: str, where: str) -> ModuleType:
    if not file.endswith(".py"):
        try:
            sys.path.insert(0, "")  # as `python -m` does: a module beside where the command was started
            return importlib.import_module(file)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{where}the module {file} can't be imported ({_told(error)}); check the name.") from error
        finally:
            sys.path.remove("")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"{where}{file}: no such file; check the path.")
    path = path.resolve()
    name = f"{_PLUGIN}{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{where}{file} can't be imported ({_told(error, path)}); mend the file.") from error
    return module


def _told(error: Exception, path: Path | None = None) -> str:
    """What went wrong, with the line of the user's file that it went wrong in."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"{type(error).__name__}: {error}{f', line {line}' if line and 'line' not in str(error) else ''}"


def _attribute(target: str) -> Any:
    module, colon, name = target.partition(":")
    module_object = importlib.import_module(module)
    return getattr(module_object, name) if colon else module_object


def _first_line(made: Any) -> str:
    text = inspect.getdoc(made) or ""
    return text.partition("\n")[0].rstrip(".")


def _file_of(made: Any) -> str:
    name = made.__name__ if isinstance(made, ModuleType) else getattr(made, "__module__", None) or type(made).__module__
    module = sys.modules.get(name)
    return str(getattr(module, "__file__", None) or name)


def _place(made: Any) -> str:
    return f"{getattr(made, '__module__', '')}:{_called(made)}"


def _called(made: Any) -> str:
    return str(getattr(made, "__qualname__", made))
