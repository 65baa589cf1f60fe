"""Recorded samples: every judged sample, kept compactly for charts and for replaying policies over what really was.

``chunks`` are columns of one (probe, target) over a span of time, ``recorder`` fills them, ``database`` is the file
that they live in, ``reading`` gives them back.
"""
