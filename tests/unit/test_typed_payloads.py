"""The annotation of a payload says what it is read into: without coercion, with the path of what is wrong."""

import dataclasses
import datetime
import enum
import uuid
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from forge_jobs import ConfigError, InvalidPayload
from forge_jobs.payload import BadPayload, Json
from forge_jobs.runtime.payloads import MsgspecReader, PlainReader, PydanticReader, reader_of

NEW_YEAR = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Line(msgspec.Struct):
    sku: str
    count: int = 1


class Order(msgspec.Struct):
    id: int
    lines: list[Line] = []
    notes: dict[int, str] = {}
    tags: set[str] = set()


class UrgentOrder(Order):
    by: str = "now"


@dataclasses.dataclass
class Letter:
    to: str
    when: datetime.datetime | None = None
    key: uuid.UUID | None = None


class Row(TypedDict):
    a: int
    b: NotRequired[str]


class Color(enum.Enum):
    RED = "red"


class Address(pydantic.BaseModel):
    street: str
    zip_code: str = pydantic.Field(alias="zipCode", default="")


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)
    addresses: list[Address] = []

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def initial(self) -> str:
        return self.name[:1]


@dataclasses.dataclass
class Parcel:
    to: Person
    weight: float


class Stranger:
    """Nothing that anybody can read."""


class Picky(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n == 1:
            raise ValueError("one is not enough")
        if self.n == 2:
            raise KeyError("two")


@pytest.mark.parametrize(
    "annotation",
    [Any, object, dict, list, str, int, None, dict[str, Any], list[dict[str, int]], str | None, Json, dict[str, Json]],
)
def test_json_types_stay_as_they_are(annotation: Any) -> None:
    reader = reader_of(annotation)
    assert isinstance(reader, PlainReader)
    assert reader.decode('{"a":[1,null]}') == {"a": [1, None]}
    with pytest.raises(BadPayload, match="cannot be read"):
        reader.decode('{"half":')
    with pytest.raises(InvalidPayload, match=r"payload\.a is a tuple"):
        reader.encode({"a": (1,)})


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (Order, '{"id":5,"lines":[{"sku":"x"}],"notes":{"1":"a"},"tags":["t"],"more":1}', None),
        (Order, '{"id":' + "9" * 4300 + "}", None),
        (list[Line], '[{"sku":"a"},{"sku":"b","count":2}]', [Line("a"), Line("b", 2)]),
        (Line | None, "null", None),
        (Letter, '{"to":"a","when":"2020-01-01T00:00:00Z"}', Letter("a", NEW_YEAR)),
        (Row, '{"a":1}', {"a": 1}),
        (dict[int, str], '{"5":"x"}', {5: "x"}),
        (Color, '"red"', Color.RED),
        (Literal["a", "b"], '"b"', "b"),
        (Annotated[int, msgspec.Meta(gt=0)], "3", 3),
        (Person, '{"name":"J","age":3,"addresses":[{"street":"s","zipCode":"1"}]}', None),
        (Parcel, '{"to":{"name":"J","age":3},"weight":2}', Parcel(Person(name="J", age=3), 2.0)),
    ],
)  # fmt: skip
def test_typed_payloads_are_read_and_written_back(annotation: Any, text: str, value: Any) -> None:
    reader = reader_of(annotation)
    read = reader.decode(text)
    if value is not None or text == "null":
        assert read == value
    assert reader.decode(msgspec.json.encode(reader.encode(read)).decode()) == read
    assert reader.schema()


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (Order, '{"id":"5"}', "payload: id: expected `int`, got `str`"),
        (Order, '{"id":true}', "payload: id: expected `int`, got `bool`"),
        (Order, '{"id":1.0}', "payload: id: expected `int`, got `float`"),
        (Order, "{}", "payload: object missing required field `id`"),
        (Order, "[]", "payload: expected `object`, got `array`"),
        (Order, '{"id":1,"lines":[{"sku":"a"},{"sku":null}]}', "payload: lines[1].sku: expected `str`, got `null`"),
        (Order, '{"id":1,"notes":{"x":"y"}}', "payload: notes (a key): expected `int`, got `str`"),
        (Order, '{"half":', "payload: the stored text cannot be read"),
        (Letter, '{"to":"a","when":"soon"}', "payload: when: invalid RFC3339 encoded datetime"),
        (Row, '{"b":"x"}', "payload: object missing required field `a`"),
        (Picky, '{"n":1}', "payload: one is not enough"),
        (Picky, '{"n":2}', "payload: KeyError: 'two'"),
        (Person, '{"name":"J","age":"3"}', "payload: age: input should be a valid integer"),
        (Person, '{"name":"J","age":-1}', "payload: age: input should be greater than or equal to 0"),
        (
            Person,
            '{"age":1,"addresses":[{},{"street":5},{}]}',
            "payload: name: field required; addresses[0].street: field required; "
            "addresses[1].street: input should be a valid string; 1 more",
        ),
        (Person, "5", "payload: input should be an object"),
        (Person, '{"half":', "payload: invalid JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(annotation: Any, text: str, message: str) -> None:
    with pytest.raises(BadPayload) as raised:
        reader_of(annotation).decode(text)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("annotation", [Order, Person])
def test_what_is_wrong_is_told_without_the_values(annotation: Any) -> None:
    with pytest.raises(BadPayload) as raised:
        reader_of(annotation).decode('{"id":"hunter2","name":"hunter2","age":"hunter2"}')
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("annotation", "payload", "message"),
    [
        (Order, {"id": 1}, "payload is a dict, not Order"),
        (Order, Order("1"), "payload: id: expected `int`, got `str`"),  # type: ignore[arg-type]
        (Order, UrgentOrder(1), "payload.by would not be read back as it was given"),
        (Order, Order(1, [Line("a", 1.5)]), "payload: lines[0].count"),  # type: ignore[arg-type]
        (Letter, Stranger(), "payload cannot be written as JSON"),
        (Letter, Letter("\ud800"), "payload"),
        (Row, {"a": 1, "c": 2}, "payload.c would not be read back as it was given; does Row have it?"),
        (Parcel, Parcel(Person(name="J", age=1), float("nan")), "payload"),
        (Person, {"name": "J", "age": 1}, "payload is a dict that cannot be written as Person"),
        (Person, Address(street="s"), "payload"),
        (Person, Person.model_construct(name="J", age=-1), "payload: age: input should be greater than or equal to 0"),
        (Line | None, 5, "payload: expected `object | null`, got `int`"),
    ],
)
def test_a_payload_that_would_not_arrive_is_refused_at_the_enqueue(annotation: Any, payload: Any, message: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        reader_of(annotation).encode(payload)
    assert str(raised.value).startswith(message)


def test_each_library_reads_its_own() -> None:
    assert isinstance(reader_of(list[Order]), MsgspecReader)
    assert isinstance(reader_of(Person | None), PydanticReader)
    assert isinstance(reader_of(Parcel), PydanticReader)


@pytest.mark.parametrize("annotation", [Stranger, list[Stranger], Letter | Row])
def test_a_type_that_nobody_can_read_is_refused(annotation: Any) -> None:
    with pytest.raises(ConfigError, match="a payload cannot be read into"):
        reader_of(annotation)


def test_schemas() -> None:
    assert reader_of(Any).schema() == {}
    assert reader_of(Json).schema() == {}
    assert reader_of(dict[str, Any]).schema() == {"type": "object"}
    assert reader_of(Line).schema()["$defs"]["Line"]["required"] == ["sku"]
    assert reader_of(Person).schema()["properties"]["age"] == {"minimum": 0, "title": "Age", "type": "integer"}
