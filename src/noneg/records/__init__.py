"""A run's directory: its file names, and a reader and a writer for each file."""
