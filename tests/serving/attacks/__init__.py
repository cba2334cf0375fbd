"""Attacks on a running server, and what a well-behaved client notices of each.

`python -m tests.serving.attacks` starts `prefrm serve` for each attack, measures it idle and then under the
attack, and prints a table. `make test-hostile` runs it.

An attack is a module of this package with a function `attack(target, until)`: it loads the server at `target`
(addresses and token) with hostile traffic until `time.monotonic()` reaches `until`, and returns the number of
requests that it sent. It runs in a process of its own. Its name is added to `ATTACKS`.
"""

ATTACKS = ("nothing", "decoding", "json", "chunks", "resets")
