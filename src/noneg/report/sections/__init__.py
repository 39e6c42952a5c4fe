"""The sections of a report's page, one file each."""
