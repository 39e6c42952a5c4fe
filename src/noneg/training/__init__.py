"""From images to a trained encoder: configuration, engine, checkpoints, progress."""
