"""The page: what an operator sees, server-rendered and complete without JavaScript.

``pages`` is the only part that knows HTTP. The view models (``overview``, ``places``, ``incident``, ``ledger``,
``rules``, ``charts`` …) are pure: from what the board, the pipeline and the store hold to frozen values that the
templates spell out. Nothing here probes or judges. Jinja is imported with the first page that is asked for: a daemon
that nobody looks at never pays for it.
"""
