"""What each command does, one file each. `noneg.cli` holds their parsers."""
