"""The `run` of every handler that runs in a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_jobs.payload import encode_payload
from forge_jobs.runtime.context import run_of
from forge_jobs.storage.error import InvalidPayload

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.payloads import PayloadReader


async def in_child(ctx: JobCtx, payload: Any) -> Any:
    """Wait for a child to call the handler. The job's kind says which that is; it reads the payload by itself, as
    stored, or as hooks and middleware made it."""
    run = run_of(ctx)
    stored = run.job.payload
    text = _passed_on(run.handler.reader, stored, payload) if run.env.handlers.hooks.wraps else stored
    return await run.env.processes.call(run, ctx, text)


def _passed_on(reader: PayloadReader, stored: str, payload: Any) -> str:
    """The payload as text: the stored one, unless something before the handler changed it, also in place.

    Texts are compared, since 1, 1.0 and True are equal as values.

    Raises:
        InvalidPayload: it was changed into what the handler cannot read.
    """
    fresh = reader.decode(stored)
    try:
        text = _text(reader, payload)
    except InvalidPayload as error:
        if payload == fresh:
            return stored  # a type that is only read
        raise InvalidPayload(
            f"a hook or middleware changed the payload into what a child process cannot be given: {error}",
            field=error.field,
            reason=error.reason,
        ) from error
    try:
        return stored if text == _text(reader, fresh) else text
    except InvalidPayload:  # what was stored is larger than what may be written here, say
        return text


def _text(reader: PayloadReader, payload: Any) -> str:
    return encode_payload(reader.encode(payload))
