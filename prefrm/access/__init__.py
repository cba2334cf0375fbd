"""Who may use a server: tokens, certificates, and the interfaces that it may listen on.

The scoring server and the pages of `prefrm app` share it.
"""
