"""From a few labels to a classifier: linear probe, fine-tuning, prediction, label curves."""
