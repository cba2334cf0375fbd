"""Benchmarks: what each kind of judge is worth and what it costs.

Each benchmark is a module or a package of its own, `judges`, `engine` and `gpu`, and imports no more than it
measures: to time an engine no trainer is imported.
"""
