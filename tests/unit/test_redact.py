"""What people do not get to see."""

from __future__ import annotations

import time

import pytest

from forge_jobs.redact import HIDDEN, is_secret, redact, redact_payload, redact_text


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
