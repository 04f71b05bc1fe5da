"""Typed payloads: the annotation of a handler's payload says what a stored payload is read into.

An annotation made of JSON's own types (`dict`, `list[str]`, `Any`, none at all) is a note for readers, and the payload
stays as it is. Anything else is decoded and validated before the handler runs, without coercion: msgspec reads structs,
dataclasses, typed dicts and what is built of them, pydantic whatever has a pydantic model in it.
"""

from __future__ import annotations

import collections.abc as abc
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from forge_jobs.payload import BadPayload, decode_payload, encode_payload
from forge_jobs.storage.error import ConfigError, InvalidPayload

PROBLEMS_SHOWN: Final = 3

_JSON_TYPES: Final = frozenset({Any, object, None, type(None), str, int, float, bool, dict, list})
_ARRAYS: Final = (list, abc.Sequence, abc.MutableSequence)
_OBJECTS: Final = (dict, abc.Mapping, abc.MutableMapping)
_WHERE: Final = re.compile(r"(?s)(.*) - at `(.*?)`$")
_KEY_WHERE: Final = re.compile(r"(?s)(.*) - at `key` in `(.*?)`$")


class PayloadReader(Protocol):
    """How the payloads of a kind are read and written."""

    @property
    def expected(self) -> str:
        """The annotation, for messages."""

    def decode(self, text: str) -> Any:
        """The payload of a handler from the stored text. Raises `BadPayload`."""

    def encode(self, payload: Any) -> Any:
        """The JSON value to store, which is known to be read back as it was given. Raises `InvalidPayload`."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of legal payloads; `{}` takes everything."""


@dataclass(frozen=True, slots=True)
class PlainReader:
    """Payloads stay the JSON values that they are."""

    annotation: Any = Any
    expected: str = "JSON"
    decode: Any = field(init=False, default=decode_payload, repr=False)

    def encode(self, payload: Any) -> Any:
        encode_payload(payload)
        return payload

    def schema(self) -> dict[str, Any]:
        try:
            return msgspec.json.schema(self.annotation)
        except Exception:  # an alias that refers to itself
            return {}


PLAIN: Final = PlainReader()


class MsgspecReader:
    """Reads structs, dataclasses, typed dicts, and types built of them."""

    def __init__(self, annotation: Any) -> None:
        self.expected = shown(annotation)
        self._annotation = annotation
        self._decoder = msgspec.json.Decoder(annotation)

    def decode(self, text: str) -> Any:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            raise BadPayload(f"payload: {_located(str(error))}") from error
        except msgspec.DecodeError:
            return self._convert(decode_payload(text))  # damaged, or an integer of more digits than msgspec reads
        except Exception as error:  # a fault of the user's own __post_init__
            raise BadPayload(f"payload: {type(error).__name__}: {error}") from error

    def encode(self, payload: Any) -> Any:
        try:
            value = msgspec.to_builtins(payload, str_keys=True)
        except Exception as error:
            raise _refused(f"payload cannot be written as JSON: {error}") from error
        return _checked(self, payload, value, lambda back: msgspec.to_builtins(back, str_keys=True))

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(self._annotation)

    def _convert(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._annotation, str_keys=True)
        except msgspec.ValidationError as error:
            raise BadPayload(f"payload: {_located(str(error))}") from error


class PydanticReader:
    """Reads whatever has a pydantic model in it, in strict mode: no `"5"` for a number unless a field allows it."""

    def __init__(self, annotation: Any) -> None:
        import pydantic

        self.expected = shown(annotation)
        self._invalid = pydantic.ValidationError
        self._adapter = pydantic.TypeAdapter(annotation)
        self._adapter.rebuild(raise_errors=True)  # names in it that are not known would fail its first job

    def decode(self, text: str) -> Any:
        try:
            return self._adapter.validate_json(text, strict=True)
        except self._invalid as error:
            raise BadPayload(f"payload: {_problems(error)}") from error
        except Exception as error:  # a fault of the user's own validator
            raise BadPayload(f"payload: {type(error).__name__}: {error}") from error

    def encode(self, payload: Any) -> Any:
        try:
            value = self._dump(payload)
        except Exception as error:
            name = type(payload).__name__  # pydantic's own message holds values
            raise _refused(f"payload is a {name} that cannot be written as {self.expected}") from error
        return _checked(self, payload, value, self._dump)

    def schema(self) -> dict[str, Any]:
        return self._adapter.json_schema()

    def _dump(self, payload: Any) -> Any:
        return self._adapter.dump_python(payload, mode="json", by_alias=True, round_trip=True, warnings="error")


def reader_of(annotation: Any) -> PayloadReader:
    """The reader for a resolved annotation.

    Raises:
        ConfigError: it names a type that nobody here can read.
    """
    if is_json(annotation):
        return PlainReader(annotation, shown(annotation))
    if any(_is_pydantic(part) for part in _parts(annotation)):
        return _pydantic(annotation)
    try:
        strangers = _strangers(msgspec.inspect.type_info(annotation))
        if not strangers:
            return MsgspecReader(annotation)
    except Exception as error:  # also a name that the type's own module does not know
        raise ConfigError(f"a payload cannot be read into {shown(annotation)}: {error}") from error
    if any(_is_pydantic(one) for one in strangers):
        return _pydantic(annotation)
    raise ConfigError(
        f"a payload cannot be read into {shown(annotation)}: {shown(strangers[0])} is none of the types that are "
        "known: msgspec Struct, dataclass, TypedDict, pydantic model, enum, date, UUID and the like. Annotate `dict`, "
        "and build the object from it"
    )


def is_json(annotation: Any) -> bool:
    """Whether an annotation is made of JSON's own types only."""
    if annotation is typing.Any or isinstance(annotation, (str, typing.ForwardRef, typing.TypeVar)):
        return True  # the text of an alias that refers to itself, such as Json
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType) or origin in _ARRAYS:
        return all(map(is_json, args))
    if origin in _OBJECTS:
        return not args or (args[0] in (str, Any) and is_json(args[1]))
    try:
        return annotation in _JSON_TYPES or annotation in _ARRAYS or annotation in _OBJECTS
    except TypeError:  # unhashable
        return False


def shown(annotation: Any) -> str:
    """An annotation as its author wrote it, nearly."""
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)


def _pydantic(annotation: Any) -> PayloadReader:
    try:
        return PydanticReader(annotation)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"pydantic cannot read payloads into {shown(annotation)}: {reason}") from error


def _is_pydantic(one: Any) -> bool:
    return isinstance(one, type) and hasattr(one, "__pydantic_core_schema__")


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for inner in typing.get_args(annotation) for part in _parts(inner))]


def _strangers(info: object) -> list[Any]:
    """The classes in a type that msgspec does not know."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, msgspec.inspect.CustomType):
            found.append(node.cls)
        if isinstance(node, (tuple, list)):
            waiting += node
        elif isinstance(node, (msgspec.inspect.Type, msgspec.inspect.Field)):
            waiting += [getattr(node, name) for name in node.__struct_fields__]
    return found


def _checked(reader: PayloadReader, payload: Any, value: Any, plain: abc.Callable[[Any], Any]) -> Any:
    """`value`, if reading it gives `payload` again."""
    text = encode_payload(value)
    try:
        back = reader.decode(text)
    except BadPayload as error:
        raise _refused(str(error)) from error
    if not isinstance(payload, type(back)):
        raise _refused(f"payload is a {type(payload).__name__}, not {reader.expected}")
    if back != payload and encode_payload(again := plain(back)) != text:
        where = _difference(value, again, "payload")
        raise _refused(f"{where} would not be read back as it was given; does {reader.expected} have it?", where)
    return value


def _difference(given: Any, back: Any, path: str) -> str:
    """Where two JSON values differ first."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key in given:
            if key not in back:
                return f"{path}.{key}"
            if given[key] != back[key]:
                return _difference(given[key], back[key], f"{path}.{key}")
    if isinstance(given, list) and isinstance(back, list):
        for index, (one, other) in enumerate(zip(given, back, strict=False)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
    return path


def _refused(message: str, where: str = "payload") -> InvalidPayload:
    return InvalidPayload(message, field=where, reason="invalid_type")


def _located(message: str) -> str:
    """msgspec's message with the path in front: "to.name: expected `str`, got `int`"."""
    for pattern, mark in ((_KEY_WHERE, " (a key)"), (_WHERE, "")):
        if found := pattern.match(message):
            path = found[2].removeprefix("$").removeprefix(".") + mark
            return f"{path.strip()}: {_lower(found[1])}"
    return _lower(message)


def _problems(error: Any) -> str:
    """pydantic's messages, each with its path, without the values."""
    every = error.errors(include_url=False, include_context=False, include_input=False)
    told = []
    for problem in every[:PROBLEMS_SHOWN]:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
        told.append(f"{path}: {_lower(problem['msg'])}" if path else _lower(problem["msg"]))
    more = len(every) - len(told)
    return "; ".join(told) + (f"; {more} more" if more else "")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
