"""What people do not get to see."""

from __future__ import annotations

import time
import traceback
import zipfile

import pytest

from forge_jobs.redact import (
    HIDDEN,
    HIDDEN_ERROR,
    HIDDEN_PAYLOAD,
    KindSecrets,
    Secrets,
    is_secret,
    redact,
    redact_payload,
    redact_text,
)


@pytest.mark.parametrize(
    "key",
    [
        *("password", "PASSWORD", "db_password", "userPassword", "passwd", "pwd", "passphrase"),
        *("secret", "clientSecret", "client-secret", "token", "access_token", "refreshToken", "authToken"),
        *("authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "sessionCookie"),
        *("api_key", "apiKey", "API-Key", "X-API-Key", "apikey", "api key", "private_key"),
        *("card", "cardNumber", "credit_card", "creditcard", "ssn", "SSN", "user_ssn", "userSSN"),
    ],
)
def test_secret_keys(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["to", "id", "className", "discard", "cardinality", "keyboard", "author", "passage", "description", "pinned"]
)
def test_keys_that_only_look_like_it(key: str) -> None:
    assert not is_secret(key)


def test_values_are_hidden_however_deep() -> None:
    value = {"a": [{"password": {"old": "x", "new": "y"}, "n": 1}], "token": ["t"], "to": "me"}
    assert redact(value) == {"a": [{"password": HIDDEN, "n": 1}], "token": HIDDEN, "to": "me"}
    assert value["token"] == ["t"]
    assert redact({"iban": "DE1", "b": 2}, ("iban",)) == {"iban": HIDDEN, "b": 2}


def test_the_text_of_a_payload_stays_json() -> None:
    assert redact_payload('{"token":"t","n":[{"iban":1.5}],"to":"J\\u00f6rg"}') == (
        f'{{"token": "{HIDDEN}", "n": [{{"iban": 1.5}}], "to": "Jörg"}}'
    )
    assert redact_payload('{"iban":{"de":1},"n":null}', ["iban"]) == f'{{"iban": "{HIDDEN}", "n": null}}'
    assert redact_payload("null") == "null"


@pytest.mark.parametrize("text", ['{"token":"ab', '{"n":1e400}', "[" * 100_000, ""])
def test_of_a_damaged_payload_only_the_size_is_shown(text: str) -> None:
    assert redact_payload(text) == f'"(unreadable payload of {len(text)} characters)"'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2 user=me", f"password={HIDDEN} user=me"),
        ("ValueError: token=abc", f"ValueError: token={HIDDEN}"),
        ('{"api_key": "a b", "n": 1}', f'{{"api_key": {HIDDEN}, "n": 1}}'),
        ("{'secret': 'it\\'s', 'n': 1}", f"{{'secret': {HIDDEN}, 'n': 1}}"),
        ("Authorization: Bearer abc.def", f"Authorization: {HIDDEN}"),
        ("GET /?access_token=abc&page=2", f"GET /?access_token={HIDDEN}&page=2"),
        ("postgresql://me:hunter2@db/jobs", "postgresql://me:***@db/jobs"),
        ("nothing: to hide, at 12:30", "nothing: to hide, at 12:30"),
        ("", ""),
    ],
)
def test_text(text: str, shown: str) -> None:
    assert redact_text(text) == shown


def test_long_text_takes_no_long_time() -> None:
    began = time.perf_counter()
    for text in (
        "a" * 16_384,
        "a=" * 8_192,
        "password=" * 2_000,
        '"' * 16_384,
        "x://" * 4_096,
        "token = " + "\\" * 16_000,
    ):
        redact_text(text)
    assert time.perf_counter() - began < 2


def test_the_rules_of_a_kind_are_for_its_jobs_alone() -> None:
    secrets = Secrets({"pay": KindSecrets(frozenset({"iban"})), "card": KindSecrets(hidden=True)})
    assert secrets.payload("pay", '{"iban": "DE1", "to": 1}') == f'{{"iban": "{HIDDEN}", "to": 1}}'
    assert secrets.payload("other", '{"iban": "DE1"}') == '{"iban": "DE1"}'
    assert secrets.payload("card", '{"to": 1}') == f'"{HIDDEN_PAYLOAD}"'
    assert secrets.value("pay", [{"iban": 1, "password": 2}]) == [{"iban": HIDDEN, "password": HIDDEN}]
    assert secrets.value("card", [1]) == HIDDEN_PAYLOAD
    assert secrets.error("pay", "no iban=DE1") == f"no iban={HIDDEN}"
    assert (secrets.error("card", "no DE1"), secrets.error("card", "")) == (HIDDEN_ERROR, "")
    assert secrets.text("card", "password=x of DE1") == f"password={HIDDEN} of DE1"
    assert secrets.of(None) == KindSecrets(frozenset({"iban"}), hidden=True)


def _raised() -> str:
    """A traceback with every part that one may have, each quoting a secret."""

    def inner(account: str) -> None:
        raise ValueError(f"no {account}\nsecond line {account}\nKeyError: {account}")

    def outer(account: str) -> None:
        try:
            inner(account)
        except ValueError as error:
            error.add_note(f"note {account}")
            raise LookupError(account) from error

    try:
        try:
            outer("DE1")
        except LookupError:
            raise ExceptionGroup("all DE1", [ValueError("DE1"), zipfile.BadZipFile("DE1")])  # noqa: B904
    except ExceptionGroup as error:
        return "".join(traceback.format_exception(error))
    raise AssertionError("nothing was raised")


def test_a_traceback_of_hidden_errors_keeps_places_and_classes() -> None:
    shown = Secrets({"card": KindSecrets(hidden=True)}).traceback("card", _raised())
    source = (
        'outer("DE1")',
        'raise ExceptionGroup("all DE1", [ValueError("DE1"), zipfile.BadZipFile("DE1")])  # noqa: B904',
    )
    for line in source:
        assert line in shown
        shown = shown.replace(line, "")
    assert "DE1" not in shown
    for kept in (
        *("Traceback (most recent call last):", "The above exception was the direct cause", "in inner", "in outer"),
        *(f"ValueError: {HIDDEN_ERROR}", f"LookupError: {HIDDEN_ERROR}", f"ExceptionGroup: {HIDDEN_ERROR}"),
        *(f"zipfile.BadZipFile: {HIDDEN_ERROR}", "During handling of the above exception"),
    ):
        assert kept in shown, kept
    assert Secrets({"card": KindSecrets(hidden=True)}).traceback("card", "what is no traceback") == HIDDEN_ERROR
    logged = Secrets({"card": KindSecrets(hidden=True)}).text("card", f"it failed\n{_raised()}")
    assert logged.startswith("it failed\nTraceback") and "second line DE1" not in logged
    assert Secrets().traceback("card", "token=x") == f"token={HIDDEN}"
