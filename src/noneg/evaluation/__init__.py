"""How good the features are, where there are labels: two probes, beside two baselines."""
