"""The machine of the studies: run a grid, keep finished runs, judge claims, write a page."""
