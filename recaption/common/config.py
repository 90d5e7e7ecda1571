"""Nested dataclasses from YAML and ``key=value``, merged strictly by OmegaConf.

A run is described by one dataclass; each part declares its own beside the code it configures.
``load_config`` merges YAML files and overrides in the order given; a key that the dataclass does
not have is an error that names the nearest one it has.
"""

import dataclasses
import difflib
import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recaption.common.errors import UserError
from recaption.common.files import atomic_write, below_home

T = TypeVar("T")

#: Asks a command for its figures as one JSON object in the last line; see ``print_json``.
JSON_FLAG = "--json"
#: Stands for the names that the user gives to sections of one kind, such as prompts.
ANY_NAME = "<name>"


class ConfigError(UserError, ValueError):
    """An unknown key, a value of the wrong type or a missing file."""


def load_config(schema: type[T], arguments: Sequence[str], usage: str | None = None) -> T:
    """Merges ``arguments`` into an instance of the dataclass ``schema``.

    Args:
        schema: the dataclass that describes the whole configuration.
        arguments: YAML paths (anything without ``=``) and ``key=value`` overrides, later ones
            win; ``--json`` is left to ``print_json``. A YAML file may name others under
            ``include``, by a path relative to itself or to the ``configs`` folder above it; they
            are merged before its own keys. Values that begin with ``~/``, or have that behind
            a comma, are paths below the user's home.
        usage: what ``--help`` prints above the keys.

    With ``--help`` among the arguments the keys are printed and the command ends.

    Raises:
        ConfigError: for an unknown key, a wrong type, a missing or malformed file.
    """
    if "--help" in arguments or "-h" in arguments:
        if usage:
            print(usage.strip(), end="\n\n")
        print("arguments: YAML files and key=value, later ones win. The keys:")
        print(format_help(schema))
        raise SystemExit(0)
    config = OmegaConf.structured(schema)
    for argument in arguments:
        if argument == JSON_FLAG:
            continue
        if "=" in argument:
            tree = _below_home(_parse_override(argument))
            config = _merge(schema, config, tree, f"argument {argument!r}")
        else:
            for path, tree in _read_with_includes(Path(argument)):
                config = _merge(schema, config, _below_home(tree), str(path))
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError(f"{missing[0]} has no default: give it as {missing[0]}=...")
        return cast(T, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from None


def print_json(arguments: Sequence[str], figures: dict[str, Any]) -> None:
    """Prints ``figures``, dataclasses among them, as one line if ``--json`` is asked for."""
    if JSON_FLAG in arguments:
        print(json.dumps(figures, default=vars))


def check_at_least(minimum: float, values: dict[str, float]) -> None:
    """Raises: ConfigError: names the first key whose value is below ``minimum``."""
    for key, value in values.items():
        if not value >= minimum:  # NaN is not
            raise ConfigError(f"{key}={value}: it must be at least {minimum}")


def check_share(key: str, value: float) -> None:
    """Raises: ConfigError: ``value`` is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{key}={value}: a share, 0 to 1")


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Raises: ConfigError: ``value`` is none of the ``choices``."""
    if value not in choices:
        raise ConfigError(f"{key} is {value!r}; choose {' or '.join(map(str, choices))}")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if none comes near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


def read_config(schema: type[T], path: Path) -> T:
    """What ``write_config`` wrote. Raises: ConfigError: as ``load_config``."""
    ((_, tree),) = _read_with_includes(path)
    return from_dict(schema, tree, str(path))


def write_config(config: object, path: Path) -> None:
    """Writes the whole configuration, defaults included, as YAML; whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def check_unchanged(
    config: object,
    begun: Path,
    may_change: Sequence[str],
    what_to_do: str = "use another folder, or delete this one",
) -> None:
    """Work may go on only as it was begun, but for the keys that ``may_change``.

    Args:
        config: what is wanted now.
        begun: what ``write_config`` wrote when the work was begun.
        may_change: keys such as ``train.num_steps``, and sections such as ``train``.
        what_to_do: the end of the error.

    Raises:
        UserError: names the first key that differs.
    """
    then, now = (flatten(to_dict(c)) for c in (read_config(type(config), begun), config))
    for key in then | now:
        is_free = key in may_change or key.startswith(tuple(f"{name}." for name in may_change))
        if not is_free and then.get(key) != now.get(key):
            raise UserError(
                f"{begun.parent} was begun with {key}={then.get(key)}, not {now.get(key)}: "
                f"{what_to_do}"
            )


def keep_config(config: object, path: Path, may_change: Sequence[str]) -> None:
    """Writes the configuration of work that may have been begun; ``check_unchanged`` first."""
    if path.exists():
        check_unchanged(config, path, may_change)
    write_config(config, path)


def to_dict(config: object) -> dict[str, Any]:
    """The whole configuration as plain dictionaries, lists and scalars."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optim": {"lr": 1}}`` -> ``{"optim.lr": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def from_dict(schema: type[T], tree: dict[str, Any], where: str) -> T:
    """The reverse of ``to_dict``; as strict as ``load_config``, ``where`` names the source."""
    config = _merge(schema, OmegaConf.structured(schema), tree, where)
    return cast(T, OmegaConf.to_object(config))


def format_help(schema: type) -> str:
    """Every key of ``schema`` with its default and the comment that stands beside it."""
    rows = list(_describe(schema, "", None))
    width = min(max(len(f"{key}={default}") for key, default, _ in rows), 52)
    return "\n".join(
        f"  {f'{key}={default}':<{width}}  {comment}".rstrip() for key, default, comment in rows
    )


def run_command(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Runs ``main``; a ``UserError`` becomes one line on stderr and exit status 2.

    So does a file or folder that the system refuses. Ctrl-C becomes one line and status 130.
    """
    try:
        return main(argv) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command can be run again", file=sys.stderr)
        return 130


def _merge(schema: type, config: DictConfig, tree: dict[str, Any], where: str) -> DictConfig:
    _check_keys(schema, tree, where)
    try:
        return cast(DictConfig, OmegaConf.merge(config, tree))
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        what = _first_line(error)
        if "is not a ListConfig" in what:
            what = "a list is needed: [VALUE, ...]"
        raise ConfigError(f"{where}: {key}{what}") from None


def _below_home(value: Any) -> Any:
    """Values, at any depth, that are a path ``~/...``, or several of them divided by commas."""
    if isinstance(value, dict):
        return {name: _below_home(below) for name, below in value.items()}
    if isinstance(value, list):
        return [_below_home(below) for below in value]
    if isinstance(value, str) and "~/" in value:
        parts = value.split(",")
        return ",".join(str(below_home(p)) if p.startswith("~/") else p for p in parts)
    return value


def _check_keys(schema: type, tree: Any, where: str) -> None:
    known = dict(_all_keys(schema, ""))
    for key, given in _given_keys(known, tree, ""):
        if key in known:
            continue
        name = key.split(".")[-1]
        guess = nearest_name(key, known) or next(
            (full for full in known if nearest_name(name, [full.split(".")[-1]])), None
        )
        hint = f"did you mean {guess!r}?" if guess else f"known keys: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown key {given!r}; {hint}")


def _sections(hint: Any) -> tuple[str, type] | None:
    """Of a section the keys' further prefix and its dataclass; None where there is a plain value.

    A dictionary of dataclasses has sections under names of the user's choice.
    """
    if dataclasses.is_dataclass(hint):
        return "", cast(type, hint)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict and dataclasses.is_dataclass(arguments[1]):
        return f".{ANY_NAME}", cast(type, arguments[1])
    return None


def _all_keys(schema: type, prefix: str) -> Iterator[tuple[str, bool]]:
    """Each key of ``schema`` and whether it is a section."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        section = _sections(hints[field.name])
        key = f"{prefix}{field.name}"
        yield key, section is not None
        if section is not None:
            if section[0]:
                yield f"{key}{section[0]}", True
            yield from _all_keys(section[1], f"{key}{section[0]}.")


def _given_keys(
    known: dict[str, bool], tree: Any, prefix: str, given_prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Each key of ``tree`` as it stands in ``known``, and as it was given."""
    for name, value in tree.items():
        given = f"{given_prefix or prefix}{name}"
        key = f"{prefix}{ANY_NAME}" if f"{prefix}{ANY_NAME}" in known else f"{prefix}{name}"
        yield key, given
        if known.get(key) and isinstance(value, dict):
            yield from _given_keys(known, value, f"{key}.", f"{given}.")


def _parse_override(argument: str) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([argument])))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"argument {argument!r}: {_first_line(error)}") from None


def _read_with_includes(
    path: Path, above: tuple[Path, ...] = ()
) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not path.is_file():
        raise ConfigError(f"no such config file: {path}")
    if path.resolve() in above:
        raise ConfigError(f"{path} includes itself")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_first_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, not a list")
    names = tree.pop("include", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: include must be a list of paths, as in [model/caft_ti.yaml]")
    for name in names:
        yield from _read_with_includes(_find_include(path, name), (*above, path.resolve()))
    yield path, tree


def _find_include(path: Path, name: str) -> Path:
    configs = [folder for folder in path.resolve().parents if folder.name == "configs"]
    for folder in [path.parent, *configs]:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{path} includes {name!r}, which is neither beside it nor under configs/")


def _describe(schema: type, prefix: str, given: object) -> Iterator[tuple[str, str, str]]:
    """Key, default and comment of each field; defaults are those of ``given``, if it is one."""
    hints = typing.get_type_hints(schema)
    comments = _field_comments(schema)
    for field in dataclasses.fields(schema):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(given, schema):
            default = getattr(given, field.name)
        section = _sections(hints[field.name])
        if section is not None:
            yield from _describe(section[1], f"{prefix}{field.name}{section[0]}.", default)
            continue
        if default in (dataclasses.MISSING, MISSING):
            default = "<required>"
        shown = yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
        yield f"{prefix}{field.name}", str(shown), comments.get(field.name, "")


def _field_comments(schema: type) -> dict[str, str]:
    """The comment above or behind each field, read from the source of the class and its bases."""
    comments: dict[str, str] = {}
    for base in reversed(schema.__mro__[1:-1]):
        comments |= _field_comments(base)
    try:
        lines = inspect.getsource(schema).splitlines()
    except (OSError, TypeError):  # no source, a class of Python itself
        return comments
    above: list[str] = []
    for line in lines:
        text = line.strip()
        if text.startswith("#"):
            above.append(text.lstrip("#: "))
            continue
        match = re.match(r"(\w+)\s*:\s[^#]*(?:#:?\s*(.*))?$", text)
        if match:
            comments[match[1]] = " ".join([*above, match[2] or ""]).strip()
        above = []
    return comments


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
