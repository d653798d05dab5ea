"""What a trained model is worth: held-out loss, its compression baselines, and samples."""
