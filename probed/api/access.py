"""Who asks, and what they may.

The UNIX socket's file mode says who may administer; over TCP nobody is known by default.
"""

from __future__ import annotations

import pwd
import socket
import struct
from typing import Protocol

from aiohttp import web
from msgspec import Struct

from probed.model import Role


class Principal(Struct, frozen=True):
    """Somebody who asks."""

    name: str
    role: Role | None
    """``None``: may do nothing but what is open to everybody."""
    via: str
    """``socket``, ``password``, ``token``, ``certificate``, ``session`` or ``anonymous``."""
    csrf: str = ""
    """What a form of a session must repeat in its field ``csrf``; empty for everybody else."""

    def __repr__(self) -> str:
        """Without ``csrf``, which nobody may read in a log."""
        return f"Principal(name={self.name!r}, role={self.role!r}, via={self.via!r})"

    def may(self, needs: Role) -> bool:
        return self.role is not None and self.role.rank >= needs.rank


class Doorkeeper(Protocol):
    """Knows people by what their request carries."""

    async def identify(self, request: web.Request) -> Principal:
        """Who sent it. Refused when it carries credentials that are wrong."""
        ...

    @property
    def remedy(self) -> str:
        """How somebody who is not known may do what they tried, for the refusal."""
        ...


WHO = web.RequestKey("who", Principal)
"""Who sent a request, as soon as that is known; also while it is being refused."""
NOBODY = Principal("anonymous", None, "anonymous")
READER = Principal("anonymous", Role.VIEWER, "anonymous")


def by_socket(request: web.Request) -> bool:
    """Whether the request came over the UNIX socket, whose file mode says who may."""
    return _socket(request) is not None


def of_socket(request: web.Request) -> Principal | None:
    """The local user at the other end of the UNIX socket, an admin; ``None`` for a request over TCP."""
    own = _socket(request)
    return None if own is None else Principal(f"local:{_user(own)}", Role.ADMIN, "socket")


def _socket(request: web.Request) -> socket.socket | None:
    transport = request.transport
    own = transport.get_extra_info("socket") if transport is not None else None
    return own if own is not None and own.family == socket.AF_UNIX else None


_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid, as ``SO_PEERCRED`` gives them."""


def _user(own: socket.socket) -> str:
    _, uid, _ = _CREDENTIALS.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a user of another name space
        return str(uid)
