"""How good the features are: label-free meters, and two probes with two baselines for labels."""
