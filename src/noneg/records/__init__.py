"""A run's directory: every file name once, one reader and one writer each."""
