"""What waits for a scorer, whose turn it is, and the thread that does the work."""
