"""The benchmark of the server: what it adds to a scorer, and what it does beyond its capacity.

Servers, the load on them and what measures them are processes of their own, so that none is timed through
another's interpreter.
"""
