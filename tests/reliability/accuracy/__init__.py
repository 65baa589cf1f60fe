"""The accuracy protocol: thousands of seeded faults on a virtual clock, judged by an oracle of its own.

``python -m tests.reliability.accuracy --seed 7 --faults 100``. The stack is scripted (``stack``), and so are its faults
(``faults``); the rounds, deadlines, probes, evaluators, topology, suppression and pipeline are the product's own
(``simulation``). What must and must not have been recorded is decided by ``oracle``, written from the contract.
"""
