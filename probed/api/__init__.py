"""The HTTP API. It reads the store and what the daemon holds in memory, and never probes.

Only ``served`` may be imported without the price of aiohttp's server; ``app`` is imported when serving begins.
"""
