"""Which probed this is. Standard library only, for commands that must start at once."""


def version() -> str:
    """Of the installed distribution; ``0+not-installed`` when it runs from a bare checkout."""
    from importlib import metadata

    try:
        return metadata.version("pg-probed")
    except metadata.PackageNotFoundError:
        return "0+not-installed"
