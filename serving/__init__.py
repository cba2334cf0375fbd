"""Serves a judge over the Open Inference Protocol, so that the stock tritonclient works with it.

One data plane decides everything; the gRPC and HTTP wires only translate. Any `prefrm.winmatrix.Scorer`
can be served.
"""
