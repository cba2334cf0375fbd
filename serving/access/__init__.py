"""Who may come in: tokens, certificates, and where the server may be seen from."""
