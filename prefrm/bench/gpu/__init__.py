"""The benchmark of a GPU: one command that fills one page, from random weights of published shapes.

    python -m prefrm.bench.gpu --out docs

`parts` lists what is measured. Each part is a process with a time limit and a result of its own (`running`,
`child`, `results`), so a failure or a time-out costs that part alone, and no part is measured twice. `page`
writes what was found; it measures nothing. Runs from a checkout with torch, transformers, peft and
accelerate; any other package that a part needs and does not find is named on the page.
"""
