"""The encoder in the formats of other tools, one file per format.

Every export is checked after it was written: what the other tool computes is compared with the
encoder.
"""
