"""The protocols that clients speak, translated to the data plane and back. Decides nothing."""
