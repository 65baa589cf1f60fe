"""Routes that are made when somebody first asks for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NoReturn

from aiohttp import web


class Later(web.AbstractResource):
    """Has every path that no other resource has. ``make`` is asked once."""

    def __init__(self, make: Callable[[], Awaitable[Sequence[web.AbstractRouteDef]]]) -> None:
        super().__init__()
        self._make, self._turn = make, asyncio.Lock()
        self._made: web.UrlDispatcher | None = None

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        async with self._turn:
            if self._made is None:
                made = web.UrlDispatcher()
                made.add_routes(await self._make())
                made.freeze()
                self._made = made
        found = await self._made.resolve(request)
        if found.http_exception is None:
            return found, set()
        refused = found.http_exception
        return None, set(refused.allowed_methods) if isinstance(refused, web.HTTPMethodNotAllowed) else set()

    # What else a resource has to have. Nobody links to it, lists it or mounts it: what it hands on to does all that.

    @property
    def canonical(self) -> str:
        return "/"  # it is asked for whatever is below

    def raw_match(self, path: str) -> bool:
        return False

    def get_info(self) -> Any:
        return {}

    def url_for(self, **kwargs: str) -> NoReturn:
        raise NotImplementedError("it has no address of its own")

    def add_prefix(self, prefix: str) -> NoReturn:
        raise NotImplementedError("it stands at the root")

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(())
