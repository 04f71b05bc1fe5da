"""Bodies of requests, read strictly."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from forge_jobs.api.problem import invalid, problem_of
from forge_jobs.payload import parse_json
from forge_jobs.storage.error import InvalidInput


class StrictRequest(Request):
    """A request whose JSON is UTF-8 without a byte order mark, an object, without duplicate keys, NaN or rest."""

    async def json(self) -> Any:
        try:
            value = parse_json(await self.body())
        except InvalidInput as error:
            raise problem_of(error) from error
        if type(value) is not dict:
            raise invalid("the body is not a JSON object", field="body", reason="body_not_object")
        return value
