"""How good the features are: label-free meters, and two probes beside three baselines."""
