"""Arguments of public functions, checked and converted by the functions' annotations."""

import inspect
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pixelscope.errors import InputError, one_line

Convert = Callable[[Any], Any]
"""Returns a value as a parameter takes it; raises TypeError if the parameter does not take it."""


def check_arguments(found: Any) -> Any:
    """Return a function that also takes strings for paths, a path for a string, and one path or any iterable for a sequence.

    Whole numbers may be NumPy's. The annotations of the function say which of its parameters take what; those that name
    anything but paths, strings, numbers, sequences of these and settings are not checked. What is no function is returned as it
    is.

    The function raises an InputError that names the parameter if it does not take its argument.
    """
    return _checking(found) if inspect.isfunction(found) else found


@cache
def _checking(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)
    arms = {name: _arms(parameter.annotation) for name, parameter in signature.parameters.items()}

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*arguments, **named)
        except TypeError:
            return function(*arguments, **named)  # whose error names the function
        for name, value in given.arguments.items():
            given.arguments[name] = _taken(name, value, arms[name])
        return function(*given.args, **given.kwargs)

    return call


def _taken(name: str, value: Any, arms: Mapping[Any, Convert]) -> Any:
    """Return an argument as the first of the parameter's types that takes it."""
    if isinstance(value, Iterator) and _anything not in arms.values():
        value = list(value)  # once for all types; what it raises is no matter of types
    for convert in arms.values():
        try:
            return convert(value)
        except TypeError:
            continue
    plain = value is None or isinstance(value, str | int | float | list | tuple)
    what = one_line(reprlib.repr(value)) if plain else f"of the type {type(value).__name__}"
    kinds = [_title(arm) for arm in arms if arm is not NoneType]
    hint = next((f", which {arm.__name__}.parse makes of one" for arm in arms if _is_config(arm)), "")
    raise InputError(f"{name} is {what}; give {' or '.join(kinds)}{hint if isinstance(value, Mapping) else ''}.")


def _arms(annotation: Any) -> dict[Any, Convert]:
    """Return the types that an annotation names, in the order in which they are tried."""
    arms = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    found = {arm: _convert(arm) for arm in arms}
    # A string for a path is taken as a path where strings are taken, too, and whatever is not known is tried last.
    order = (NoneType, Path)
    return dict(sorted(found.items(), key=lambda one: (one[1] is _anything, one[0] not in order)))


def _convert(arm: Any) -> Convert:
    """Return what converts arguments to a type."""
    known = {NoneType: _nothing, Path: _path, str: _text, int: _whole_number, float: _number}
    origin, items = get_origin(arm), get_args(arm)
    if origin is None:
        return known.get(arm, _instance_of(arm) if _is_config(arm) else _anything)
    if origin is Literal:
        return _one_of(items)
    if origin not in (Sequence, tuple, Mapping) or any(item is not Ellipsis and _convert(item) is _anything for item in items):
        return _anything
    if origin is Mapping:
        return _mapping(*map(_convert, items))
    count = len(items) if origin is tuple and Ellipsis not in items else None
    return _several(_convert(items[0]), count)


def _title(arm: Any) -> str:
    """Return the name of a type in a sentence."""
    known = {Path: "a path", str: "text", int: "a whole number", float: "a number"}
    origin, items = get_origin(arm), get_args(arm)
    if origin is None:
        name = getattr(arm, "__name__", str(arm))
        return known.get(arm, f"{'an' if name[0] in 'AEIO' else 'a'} {name}")
    if origin is Literal:
        return " or ".join(map(str, items))
    if origin is Mapping:
        return f"a mapping, each value {_title(items[1])}"
    if origin is tuple and Ellipsis not in items:
        return f"{len(items)} values, each {_title(items[0])}"
    return f"a sequence, each item {_title(items[0])}"


def _is_config(arm: Any) -> bool:
    """Return whether a type is one of settings."""
    return isinstance(arm, type) and hasattr(arm, "model_fields")


def _anything(value: Any) -> Any:
    return value


def _nothing(value: Any) -> None:
    if value is not None:
        raise TypeError


def _path(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise TypeError
    return Path(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | PurePath):
        raise TypeError
    return str(value)


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return value if isinstance(value, int | float) else float(value)


def _one_of(choices: tuple[Any, ...]) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise TypeError
        return value

    return convert


def _instance_of(kind: type) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return convert


def _mapping(key: Convert, item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError
        return {key(one): item(other) for one, other in value.items()}

    return convert


def _several(item: Convert, count: int | None) -> Convert:
    """Return what converts one item, or any iterable of them; `count`: how many there must be, as a tuple."""

    def convert(value: Any) -> Any:
        if isinstance(value, str | os.PathLike):
            found = [item(value)]
        elif isinstance(value, Iterable):
            found = [item(one) for one in value]
        else:
            raise TypeError
        if count is not None and len(found) != count:
            raise TypeError
        return tuple(found) if count is not None else sorted(found) if isinstance(value, Set) else found

    return convert
