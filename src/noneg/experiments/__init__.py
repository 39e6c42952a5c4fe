"""The machine of the studies: run a grid, keep what is finished, judge claims, write a page."""
