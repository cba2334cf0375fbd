"""The view "Collect": people compare pairs of candidates, and their answers are kept."""
