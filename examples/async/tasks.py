"""Coroutines: a step awaits what it calls."""

import asyncio


async def fetch(name):
    """Wait for something."""
    await asyncio.sleep(0)
    return f"hello {name}"


async def fetch_all(names):
    """Wait for several things at the same time."""
    return await asyncio.gather(*map(fetch, names))
