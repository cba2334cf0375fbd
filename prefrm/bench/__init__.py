"""Benchmarks: what each kind of judge is worth and what it costs, and the speed of engine and trainers.

Each benchmark is a module or a package of its own, `judges`, `engine`, `flow` and `gpu`, and imports no more
than it measures: to time an engine no trainer is imported.
"""
