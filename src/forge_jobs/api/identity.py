"""Who calls, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Protocol


class Role(IntEnum):
    """What one may do; each includes those before it."""

    READ = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller. `queues`: the only ones that it sees and touches, if it is limited to some."""

    name: str
    role: Role
    queues: tuple[str, ...] | None = None
    expires_at: datetime | None = None

    def may_see(self, queue: str) -> bool:
        return self.queues is None or queue in self.queues

    def visible(self, asked: list[str] | None) -> list[str] | None:
        """Of the queues that are asked for (None: all of them) those that it may see; None if that is all."""
        if self.queues is None:
            return asked
        return list(self.queues) if asked is None else [queue for queue in asked if queue in self.queues]


ANYONE = Identity(name="local", role=Role.ADMIN)
"""Every caller of an app without tokens: who reaches the loopback of this machine."""


class TokenFile(Protocol):
    """Known tokens."""

    def find(self, token: bytes, now: datetime) -> Identity | None:
        """Whose token it is, if it is one and has not expired."""

    def find_session(self, session: str, now: datetime) -> Identity | None:
        """Whose login it is, if it is one that has not ended, with the token that it came from."""

    def begin_session(self, token: bytes, now: datetime) -> tuple[str, datetime] | None:
        """A login with this token, and when it ends; None if the token is none."""

    def end_session(self, session: str) -> None:
        """Forget a login."""
